"""Bootstrap intervals over patients: scans of one patient are not independent, so whole patients
are drawn (Efron and Tibshirani, 1993, ch. 8).

A metric that cannot be computed on some draws (an AUC without a positive) is taken over the others;
with fewer than half of them there is no interval.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from wavespark.errors import ShapeError
from wavespark.randomness import stream

DRAWS = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A figure with its 95 % interval; `low` and `high` are NaN where there is none."""

    value: float
    low: float
    high: float
    patients: int
    """How many were drawn from."""

    def to_json(self) -> dict[str, float | int | None]:
        """Plain values; None for what could not be computed."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {k: v if math.isfinite(v) else None for k, v in numbers.items()} | {"patients": self.patients}

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "not computable"
        if not math.isfinite(self.low):
            return f"{self.value:.3f} (no interval: {self.patients} patient(s))"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    statistic: Callable[[np.ndarray], float], patients: Sequence[Hashable], *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """The statistic of all rows, with the 2.5 and 97.5 percentiles of what it is when patients are
    drawn with replacement.

    Args:
        statistic: int64 row numbers (with repeats) -> figure; NaN where it cannot be computed.
        patients: whose each row is.
        draws: how many times to draw.
        seed: of the draws.

    Example:
        >>> scores = np.array([0.1, 0.4, 0.5, 0.9])
        >>> bootstrap(lambda rows: float(scores[rows].mean()), "aabb").value
        0.475

    Raises:
        ShapeError: if there is no row.
    """
    if not len(patients):
        raise ShapeError("an interval needs at least one row, got 0")
    of_patient: dict[Hashable, list[int]] = {}
    for row, patient in enumerate(patients):
        of_patient.setdefault(patient, []).append(row)
    groups = [np.array(rows, np.int64) for rows in of_patient.values()]
    value = float(statistic(np.arange(len(patients))))
    if len(groups) < 2:
        return Interval(value=value, low=math.nan, high=math.nan, patients=len(groups))
    chosen = stream(seed, purpose="bootstrap").integers(len(groups), size=(draws, len(groups)))
    found = np.array([statistic(np.concatenate([groups[g] for g in draw])) for draw in chosen], np.float64)
    found = found[np.isfinite(found)]
    if 2 * len(found) < draws:
        return Interval(value=value, low=math.nan, high=math.nan, patients=len(groups))
    low, high = np.percentile(found, (2.5, 97.5)).tolist()
    return Interval(value=value, low=low, high=high, patients=len(groups))


def mean_interval(values: Sequence[float] | np.ndarray, patients: Sequence[Hashable], *, seed: int = 0) -> Interval:
    """The mean of one figure a row, rows without one (NaN) left out; see `bootstrap`."""
    kept = np.asarray(values, np.float64)
    finite = np.isfinite(kept)
    if not finite.any():
        return Interval(value=math.nan, low=math.nan, high=math.nan, patients=0)
    kept = kept[finite]
    return bootstrap(
        lambda rows: float(kept[rows].mean()), [p for p, f in zip(patients, finite, strict=True) if f], seed=seed
    )


def paired_interval(
    ours: Sequence[float] | np.ndarray,
    theirs: Sequence[float] | np.ndarray,
    patients: Sequence[Hashable],
    *,
    seed: int = 0,
) -> Interval:
    """The mean difference `ours - theirs` on the same rows; above zero where `low` is.

    Raises:
        ShapeError: if there are not as many of one as of the other.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape:
        raise ShapeError(f"a paired difference needs the same rows on both sides, got {a.shape} and {b.shape}")
    return mean_interval(a - b, patients, seed=seed)
