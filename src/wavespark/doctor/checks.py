"""What is installed, whether it imports, and whether it is new enough to be safe."""

import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

IMPORTS = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "pydantic": "pydantic",
    "nibabel": "nibabel",
    "pydicom": "pydicom",
    "pynrrd": "nrrd",
    "safetensors": "safetensors",
    "blosc2": "blosc2",
}
"""Packages that wavespark needs, and the name that each is imported by."""
OPTIONAL = {
    "nilearn": "samples",
    "matplotlib": "report",
    "tensorboard": "report",
    "scikit-learn": "eval",
    "ptwt": "wavelets",
    "python-gdcm": "dicom",
    "pylibjpeg-openjpeg": "dicom",
    "pyjpegls": "dicom",
    "pylibjpeg": "dicom",
}
"""Packages of extras."""
MINIMUM = {"torch": "2.10", "pydicom": "3.0.2"}
"""Oldest versions without a known vulnerability: CVE-2026-24747 in torch, CVE-2026-32711 in pydicom."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One line of the doctor's table."""

    name: str
    expected: str
    found: str
    ok: bool
    remedy: str = ""
    """What to type, where it is not ok."""
    seconds: float = 0.0


def examine() -> list[Check]:
    """The environment: Python, packages, accelerator, disk."""
    python = Check(
        name="python",
        expected=">= 3.11",
        found=platform.python_version(),
        ok=sys.version_info >= (3, 11),
        remedy="install Python 3.11 or newer",
    )
    packages = [_package(name, module) for name, module in IMPORTS.items()]
    extras = [_optional(name, extra) for name, extra in OPTIONAL.items()]
    return [python, *packages, *extras, _accelerator(), _disk()]


def _package(name: str, module: str) -> Check:
    safe = MINIMUM.get(name, "")
    expected = f">= {safe}" if safe else "imports"

    def check(found: str, remedy: str = "") -> Check:
        return Check(name=name, expected=expected, found=found, ok=not remedy, remedy=remedy)

    try:
        found = version(name)
    except PackageNotFoundError:
        return check("not installed", f"pip install {name}")
    broken = _import_failure(module)
    if broken:
        return check(f"{found}, does not import ({broken})", f"pip install --force-reinstall {name}")
    if safe and _number(found) < _number(safe):
        return check(f"{found}, has a known vulnerability", f"pip install '{name}>={safe}'")
    return check(found)


def _import_failure(module: str) -> str:
    """The kind of error of importing in a fresh process, or nothing: a crash of an extension cannot take the doctor with it."""
    code = f"import sys\ntry:\n import {module}\nexcept BaseException as e:\n print(type(e).__name__)\n sys.exit(1)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return "no answer in 120 s"
    return "" if done.returncode == 0 else (done.stdout.strip() or f"signal {-done.returncode}")


def _optional(name: str, extra: str) -> Check:
    try:
        found = version(name)
    except PackageNotFoundError:
        found = f"not installed: pip install 'wavespark[{extra}]'"
    return Check(name=name, expected=f"optional, extra `{extra}`", found=found, ok=True)


def _accelerator() -> Check:
    import torch

    found = "skipped: no CUDA device"
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        found = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, {precision}"
    return Check(name="accelerator", expected="optional", found=found, ok=True)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    remedy = "make room, or work on another disk"
    return Check(name="free disk here", expected=">= 2 GiB", found=f"{free:.1f} GiB", ok=free >= 2, remedy=remedy)


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text.split("+", maxsplit=1)[0])[:3])
