"""Each compiled extension of torch: the torch that it was built against, beside the one that runs.

Where that is known from: a file `built-with-torch.txt` in its metadata (our images write it), an
exact requirement (torchvision), or the local part of its version (`+pt24cu121`). What is not known
is tried: it is imported after torch.
"""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions

from wavespark.doctor.check import Check, version_number
from wavespark.doctor.packages import import_failures, installed_version, module_of

_OURS = frozenset({"minkowskiengine"})
"""Extensions that wavespark can use; others only warn."""
_EXACT = re.compile(r"torch\s*\(?\s*==\s*([0-9.]+)")
_NEEDS_TORCH = re.compile(r"torch\b(?![-_])(?!.*extra ==)")
_LOCAL = re.compile(r"\+(?:pt|torch)(\d)\.?(\d+)")


def extension_checks() -> list[Check]:
    """A line for every installed extension that is linked to torch."""
    running = installed_version("torch")
    found = list(_extensions()) if running else []
    broken = import_failures([_module(d) for d in found], first=["torch"])
    checks = []
    for distribution in found:
        name, built = distribution.metadata["Name"], built_with(distribution)
        failure = broken.get(_module(distribution))
        other = bool(built) and version_number(built)[:2] != version_number(running)[:2]
        optional = name.lower() not in _OURS
        words = f"built with torch {built or 'of unknown version'}, running {running}"
        remedy = ""
        if failure is not None:
            meaning = failure.meaning
            words += f"; does not import: {meaning.cause if meaning else failure.kind}"
            remedy = meaning.remedy if meaning else f"pip install --force-reinstall --no-deps {name}"
        elif other:
            remedy = f"rebuild or reinstall {name} for torch {running}, or pip uninstall {name}"
        bad = failure is not None or other
        checks.append(
            Check(
                name=f"extension {name}",
                expected="the running torch",
                found=words,
                ok=optional or not bad,
                warning=optional and bad,
                remedy=f"{remedy}. wavespark does not use it" if remedy and optional else remedy,
            )
        )
    return checks


def built_with(distribution: Distribution) -> str:
    """The torch that an extension was built against; empty if nothing tells."""
    told = distribution.read_text("built-with-torch.txt")
    if told:
        return told.strip()
    for line in distribution.requires or ():
        if match := _EXACT.match(line):
            return match[1]
    local = _LOCAL.search(distribution.version)
    return f"{local[1]}.{local[2]}" if local else ""


def _extensions() -> Iterator[Distribution]:
    """Distributions with a compiled file that need torch, torch itself and wavespark's own
    requirements aside."""
    seen = set()
    for distribution in distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if name in seen or name in {"", "torch", "functorch"}:
            continue
        seen.add(name)
        needs = name in _OURS or any(_NEEDS_TORCH.match(line) for line in distribution.requires or ())
        if needs and any(str(f).endswith((".so", ".pyd")) for f in distribution.files or ()):
            yield distribution


def _module(distribution: Distribution) -> str:
    name = distribution.metadata["Name"]
    top = (distribution.read_text("top_level.txt") or "").split()
    known = module_of(name)
    return known if known != name else next((t for t in top if not t.startswith("_")), name.replace("-", "_"))
