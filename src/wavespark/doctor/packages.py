"""Check of each package: installed, expected version, safe version, importable."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import MappingProxyType

from wavespark.doctor.check import Check, version_number
from wavespark.doctor.messages import Meaning, recognise
from wavespark.doctor.profiles import SAFE, Profile, Wanted

_MODULES = MappingProxyType(
    {
        "pynrrd": "nrrd",
        "scikit-learn": "sklearn",
        "python-gdcm": "gdcm",
        "pylibjpeg-openjpeg": "openjpeg",
        "pylibjpeg-rle": "rle",
        "pyjpegls": "jpeg_ls",
        "pywavelets": "pywt",
        "pillow": "PIL",
        "minkowskiengine": "MinkowskiEngine",
    }
)
"""Names that packages are imported by, where it is not their own."""
_SLOW = frozenset({"monai", "nilearn", "tensorboard", "transformers", "onnxruntime"})
"""Not imported: seconds each, and wavespark does so only where they are used."""
_CHILD = """
import importlib, json, os, sys, traceback, warnings
warnings.simplefilter("ignore")
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        told = {"ends": name, "kind": type(error).__name__, "text": traceback.format_exc()[-8000:]}
    else:
        told = {"ends": name, "kind": "", "text": ""}
    print(json.dumps(told), file=answers, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a module does not import."""

    kind: str
    """The name of the exception, or of the signal that ended the process."""
    meaning: Meaning | None


def package_checks(profile: Profile) -> list[Check]:
    """A line for each package of the profile."""
    installed = {w.package: found for w in profile.packages if (found := installed_version(w.package))}
    tried = [p for p in installed if p not in _SLOW]
    broken = import_failures([module_of(p) for p in tried])
    return [_check(w, installed.get(w.package, ""), broken.get(module_of(w.package))) for w in profile.packages]


def module_of(package: str) -> str:
    """The name that a package is imported by."""
    return _MODULES.get(package.lower(), package)


def installed_version(package: str) -> str:
    """The installed version; empty if there is none."""
    try:
        found = distribution(package)
    except PackageNotFoundError:
        return ""
    return (_version_of_build(found) if package == "torch" else "") or found.version


def _version_of_build(torch: Distribution) -> str:
    """`2.4.0+cu121`: PyPI's wheels of torch say which CUDA they were built for in this file and not
    in their metadata."""
    try:
        text = Path(str(torch.locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    match = re.search(r"^__version__ = ['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return match[1] if match else ""


def _check(wanted: Wanted, found: str, broken: Broken | None) -> Check:
    name, least = wanted.package, wanted.exact or wanted.least
    pinned = f"'{name}=={wanted.exact.split('+')[0]}'" if wanted.exact else f"'{name}>={least}'" if least else name

    def answer(words: str, remedy: str = "", *, ok: bool = False, warning: bool = False) -> Check:
        absent = ok and not found
        return Check(
            name=name, expected=wanted.expected, found=words, ok=ok, remedy=remedy, warning=warning, absent=absent
        )

    if not found and wanted.extra:
        return answer("not installed", f"pip install 'wavespark[{wanted.extra}]'", ok=True)
    if not found:
        return answer("not installed", _source_build(name) or f"pip install {pinned}")
    if broken is not None:
        meaning = broken.meaning
        why = meaning.cause if meaning else broken.kind
        return answer(
            f"{found}, does not import: {why}", meaning.remedy if meaning else f"pip install --force-reinstall {name}"
        )
    if wanted.exact and not _same(found, wanted.exact):
        return answer(found, _source_build(name) or f"pip install {pinned}")
    if least and version_number(found) < version_number(least):
        return answer(f"{found}, too old", f"pip install {pinned}")
    safe = SAFE.get(name, "")
    if safe and version_number(found) < version_number(safe):
        words, remedy = f"{found}, has a known vulnerability", f"pip install '{name}>={safe}'"
        if wanted.unsafe_is_warning:
            return answer(words, f"use it on trusted files only; elsewhere {remedy}", ok=True, warning=True)
        return answer(words, remedy)
    return answer(found, ok=True)


def _same(found: str, exact: str) -> bool:
    """Equal versions; a local part counts only where it is asked for."""
    return found == exact or ("+" not in exact and found.split("+", maxsplit=1)[0] == exact)


def _source_build(name: str) -> str:
    return "it has no wheels: build it as docs/how-to/minkowski.md says" if name == "MinkowskiEngine" else ""


def import_failures(modules: Iterable[str], first: Iterable[str] = ()) -> dict[str, Broken]:
    """Why modules do not import, by name; those that do are not in it.

    They are imported one after the other in a fresh process, after `first`: an extension that
    crashes cannot take the doctor with it, and the next ones are tried in another one.
    """
    left, failures = list(modules), {}
    while left:
        told, error = _import_all([*first, *left])
        ended = {answer["ends"]: answer for answer in told}
        for name in left:
            if name in ended and ended[name]["kind"]:
                kind, text = ended[name]["kind"], ended[name]["text"]
                failures[name] = Broken(kind, recognise(text + error, name))
        left = [name for name in left if name not in ended]
        if left:
            failures[left[0]] = Broken("the process ends while it is imported", recognise(error, left[0]))
            left = left[1:]
    return failures


def _import_all(modules: list[str]) -> tuple[list[dict[str, str]], str]:
    command = [sys.executable, "-W", "ignore", "-c", _CHILD, *modules]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)
        out, error = done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        out = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
        error = ""
    return [json.loads(line) for line in out.splitlines() if line.startswith("{") and line.endswith("}")], error
