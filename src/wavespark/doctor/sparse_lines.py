"""The sparse suite as lines of the doctor's table, engines that are installed and cannot be used
among them."""

from collections.abc import Iterator

from wavespark.doctor.check import Check
from wavespark.doctor.packages import import_failures, installed_version
from wavespark.doctor.sparse_suite import SparseCheck, sparse_suite
from wavespark.sparse import engines

_PACKAGES = {
    "minkowski": ("MinkowskiEngine", ("MinkowskiEngine",)),
    "spconv": ("spconv.pytorch", ("spconv", *(f"spconv-cu{n}" for n in (126, 124, 121, 120, 118, 117)))),
}
"""Engine -> the module that is imported, and the packages that bring it."""


def sparse_checks() -> Iterator[Check]:
    """Every test on every engine, one after the other."""
    usable = engines()
    for name in usable:
        for result in sparse_suite(names=[name]):
            yield _line(result)
    for name, (module, packages) in _PACKAGES.items():
        package = next((p for p in packages if installed_version(p)), "")
        if package and name not in usable:
            yield _unusable(name, package, module)


def _line(c: SparseCheck) -> Check:
    memory = "" if c.peak_mb is None else f", {c.peak_mb:.0f} MB"
    refused = c.status == "skipped" and c.test == "all"
    ok = c.status != "failed"
    return Check(
        name=f"{c.engine}: {c.test}",
        expected="passes",
        found=f"{'' if ok else 'failed: '}{c.detail}{'' if refused else memory}",
        ok=ok,
        warning=refused,
        absent=c.status == "skipped" and not refused,
        remedy=""
        if ok and not refused
        else "OMP_NUM_THREADS=1 wavespark doctor"
        if refused
        else "keep the engine `torch`, and report it with the output of `wavespark doctor --json`",
        component=f"sparse engine {c.engine}",
        seconds=round(c.seconds, 2),
    )


def _unusable(name: str, package: str, module: str) -> Check:
    """An engine whose package is there and does not import: a trap worth a line."""
    broken = import_failures([module], first=["torch"]).get(module)
    meaning = broken.meaning if broken else None
    why = meaning.cause if meaning else broken.kind if broken else "it is not what wavespark can use"
    return Check(
        name=f"{name}: engine",
        expected="imports, or is not installed",
        found=f"{package} {installed_version(package)} cannot be used: {why}",
        ok=False,
        remedy=f"{meaning.remedy if meaning else f'pip uninstall {package}'}. Or keep the engine `torch`",
        component=f"sparse engine {name}",
    )
