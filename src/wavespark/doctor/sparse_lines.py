"""The sparse suite as lines of the doctor's table, engines that are installed and cannot be used among them."""

from collections.abc import Iterator

from wavespark.doctor.check import Check
from wavespark.doctor.packages import import_failures, installed_version
from wavespark.doctor.sparse_suite import SparseCheck, sparse_suite
from wavespark.sparse import engines

_PACKAGE = {"minkowski": ("MinkowskiEngine", "MinkowskiEngine"), "spconv": ("spconv", "spconv.pytorch")}


def sparse_checks() -> Iterator[Check]:
    """Every test on every engine, one after the other."""
    usable = engines()
    for name in usable:
        for result in sparse_suite(names=[name]):
            yield _line(result)
    for name, (package, module) in _PACKAGE.items():
        if name not in usable:
            yield from _unusable(name, package, module)


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


def _unusable(name: str, package: str, module: str) -> Iterator[Check]:
    """An engine whose package is there and does not import: a trap worth a line."""
    found = installed_version(package) or next(
        (
            v
            for v in (installed_version(f"spconv-cu{n}") for n in (126, 124, 121, 120, 118, 117))
            if v and name == "spconv"
        ),
        "",
    )
    if not found:
        return
    broken = import_failures([module], first=["torch"]).get(module)
    meaning = broken.meaning if broken else None
    why = meaning.cause if meaning else broken.kind if broken else "it is not what wavespark can use"
    yield Check(
        name=f"{name}: engine",
        expected="imports, or is not installed",
        found=f"{package} {found} cannot be used: {why}",
        ok=False,
        remedy=f"{meaning.remedy if meaning else f'pip uninstall {package}'}. Or keep the engine `torch`",
        component=f"sparse engine {name}",
    )
