"""The environment: Python, packages, extensions, accelerator, resources, codecs."""

import platform
import sys
from collections.abc import Iterable

from wavespark.doctor.check import Check
from wavespark.doctor.codecs import codec_checks
from wavespark.doctor.extensions import extension_checks
from wavespark.doctor.machine import machine_checks
from wavespark.doctor.packages import package_checks
from wavespark.doctor.profiles import Profile, profile, requirements
from wavespark.doctor.resources import resource_checks


def examine(wanted: Profile | None = None) -> list[Check]:
    """Every line of the environment table, for the profile `current` if none is given."""
    wanted = wanted or profile("current")
    checks = [_python(), *package_checks(wanted), *extension_checks()]
    if loads(checks, "torch"):
        checks += machine_checks(wanted.cuda)
    checks += resource_checks()
    if loads(checks, "pydicom", "numpy"):
        checks += codec_checks()
    return checks


def loads(checks: Iterable[Check], *packages: str) -> bool:
    """Return True if these packages import; by default all that wavespark requires."""
    wanted = packages or tuple(w.package for w in requirements() if not w.extra)
    return not any(
        c.name in wanted and not c.ok and ("not installed" in c.found or "not import" in c.found) for c in checks
    )


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check(
        name="python",
        expected=">= 3.11",
        found=platform.python_version(),
        ok=ok,
        remedy="" if ok else "install Python 3.11 or newer, and make the virtual environment with it",
    )
