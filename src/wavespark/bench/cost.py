"""Cost of a piece of work: processor time, time on the wall, memory pages that the system had to
hand out."""

import resource
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One measurement, or the medians of several."""

    user: float
    """Seconds of all threads in user mode: what the computation takes, whoever else uses the
    machine."""
    wall: float
    """Seconds on the wall."""
    faults: float
    """Minor page faults: near 0, or the figures show the system's allocator and not the
    computation."""

    @classmethod
    def of(cls, work: Callable[[], object]) -> "Cost":
        """Runs the work once."""
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        work()
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        return cls(user=after.ru_utime - before.ru_utime, wall=wall, faults=after.ru_minflt - before.ru_minflt)

    @classmethod
    def median(cls, costs: Iterable["Cost"]) -> "Cost":
        """The median of each."""
        kept = list(costs)
        user, wall, faults = (statistics.median(getattr(c, name) for c in kept) for name in ("user", "wall", "faults"))
        return cls(user=user, wall=wall, faults=faults)


def median_ratio(costs: list[Cost], yardstick: list[Cost], kind: str) -> float:
    """The median over rounds of the ratio within a round: load that comes and goes hits both forms
    of a round alike."""
    return statistics.median(getattr(a, kind) / getattr(b, kind) for a, b in zip(costs, yardstick, strict=True))


def resident_bytes(name: str) -> int:
    """Memory of this process as Linux reports it: `VmRSS:` now, `VmHWM:` at most.

    Unlike `ru_maxrss` it does not start at what the parent had.

    Raises:
        OSError: on other systems.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
