"""Writes docker/requirements.lock: every package of the images but torch, with the SHA-256 of the file that pip takes here.

    python tools/lock.py

torch is left out, because its builds differ between the targets. Run it on the platform of the images (Linux x86-64, Python 3.11).
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "samples,report,dicom"
HEAD = (
    "# Made by tools/lock.py from constraints.txt: Linux x86-64, Python 3.11, extras "
    + EXTRAS
    + ". torch is installed before it.\n"
)


def main() -> int:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--report",
        "-",
        "-c",
        "constraints.txt",
        f".[{EXTRAS}]",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        return 1
    lines = []
    for entry in json.loads(done.stdout[done.stdout.index("{") :])["install"]:
        name, version = entry["metadata"]["name"], entry["metadata"]["version"]
        hashes = entry["download_info"].get("archive_info", {}).get("hashes", {})
        if name.lower() in {"torch", "wavespark", "triton"} or re.match(r"nvidia-|cuda-", name.lower()):
            continue
        lines.append(f"{name}=={version} --hash=sha256:{hashes['sha256']}")
    (ROOT / "docker/requirements.lock").write_text(
        HEAD + "\n".join(sorted(lines, key=str.lower)) + "\n", encoding="utf-8"
    )
    sys.stdout.write(f"{len(lines)} packages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
