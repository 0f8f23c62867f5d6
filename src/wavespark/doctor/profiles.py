"""Expected versions: the package's own requirements (`current`), and those of the 2025-10 system
(`seed-2025-10`)."""

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from types import MappingProxyType
from typing import Literal

from wavespark.doctor.check import version_number
from wavespark.errors import SettingsError

ProfileName = Literal["current", "seed-2025-10"]

SAFE = MappingProxyType({"torch": "2.10", "pydicom": "3.0.2", "monai": "1.6.1"})
"""Oldest versions without a known vulnerability: CVE-2026-24747 in torch, CVE-2026-32711 in
pydicom, eval and pickle in monai.bundle.

Kept here because a scanner that cannot reach its data base says that all is well."""

_CHECKED_EXTRAS = ("samples", "report", "wavelets", "dicom", "monai", "cluster", "huggingface", "onnx")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)[^;]*?(?:>=\s*([0-9.]+))?[^;>]*(?:;.*extra == ['\"]([\w-]+)['\"].*)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A package, and what is wanted of it."""

    package: str
    least: str = ""
    exact: str = ""
    extra: str = ""
    """The extra that brings it; empty if wavespark cannot do without."""
    unsafe_is_warning: bool = False

    @property
    def expected(self) -> str:
        """In words."""
        if self.exact:
            return self.exact
        safe = "" if self.unsafe_is_warning else SAFE.get(self.package, "")
        least = max(self.least, safe, key=version_number)
        words = f">= {least}" if least else "any version"
        return f"{words}, extra `{self.extra}`" if self.extra else words


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """An environment by name."""

    name: ProfileName
    packages: tuple[Wanted, ...]
    cuda: str = ""
    """The CUDA toolkit that is pinned; empty if any will do."""


_SEED = MappingProxyType(
    {"torch": "2.4.0+cu121", "numpy": "1.26.4", "MinkowskiEngine": "0.5.4", "ptwt": "1.0.1", "monai": "1.5.1"}
)
"""Versions of the 2025-10 system (SPEC A1-A3)."""


def profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        SettingsError: if there is none.
    """
    own = requirements()
    if name == "current":
        return Profile(name="current", packages=own)
    if name != "seed-2025-10":
        raise SettingsError(f"no profile is called {name!r}: there are current and seed-2025-10")
    pins = tuple(Wanted(package=p, exact=v, unsafe_is_warning=True) for p, v in _SEED.items())
    rest = tuple(w for w in own if w.package not in _SEED and not w.extra)
    return Profile(name="seed-2025-10", packages=(*pins, *rest), cuda="12.1.1")


def requirements() -> tuple[Wanted, ...]:
    """Return the requirements that the installed package declares, extras included."""
    try:
        lines = requires("wavespark") or []
    except PackageNotFoundError:
        lines = []
    found: dict[str, Wanted] = {}
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match is None or (match[3] and match[3] not in _CHECKED_EXTRAS):
            continue
        name = match[1].lower()
        least = match[2] or ""
        found.setdefault(name, Wanted(package=name, least=least, extra=match[3] or ""))
    return tuple(sorted(found.values(), key=lambda w: (bool(w.extra), w.extra)))
