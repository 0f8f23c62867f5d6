"""A software bill of materials of the environment that runs this: CycloneDX 1.5 JSON on standard output.

.venv/bin/python tools/sbom.py > sbom.json
"""

import hashlib
import json
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def main() -> int:
    found = {d.metadata["Name"].lower(): d for d in distributions() if d.metadata["Name"]}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": _component(found["wavespark"])} if "wavespark" in found else {},
        "components": [_component(found[name]) for name in sorted(found) if name != "wavespark"],
    }
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0


def _component(distribution: Distribution) -> dict[str, Any]:
    name, version = distribution.metadata["Name"], distribution.version
    record = distribution.read_text("RECORD") or distribution.read_text("METADATA") or ""
    return {
        "type": "library",
        "bom-ref": f"{name}=={version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
        "licenses": [{"license": {"name": licence}} for licence in _licences(distribution)],
        # Of the list of installed files with their own hashes: equal installations have equal ones.
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(record.encode()).hexdigest()}],
    }


def _licences(distribution: Distribution) -> list[str]:
    told = distribution.metadata.get("License-Expression") or ""
    classified = [
        c.rsplit(" :: ", 1)[-1] for c in distribution.metadata.get_all("Classifier") or [] if c.startswith("License ::")
    ]
    free = (distribution.metadata.get("License") or "").splitlines()
    return [told] if told else classified or ([free[0][:80]] if free and free[0] else [])


if __name__ == "__main__":
    sys.exit(main())
