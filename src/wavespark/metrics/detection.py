"""Points found against lesions that are there: FROC, and sensitivity at a number of false positives
a scan.

A found point hits the nearest lesion (by centre) within that lesion's reach. The best-scored hit of
a lesion detects it; further hits of the same lesion are neither false nor true positives, as in
LUNA16 (Setio et al., "Validation, comparison, and combination of algorithms for automatic detection
of pulmonary nodules", 2017).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wavespark.errors import ShapeError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scan:
    """Detections and lesions of one scan. M detections, T lesions."""

    found_M3: np.ndarray
    """float [M, 3], mm."""
    scores_M: np.ndarray
    """float [M], finite; higher is surer."""
    lesions_T3: np.ndarray
    """float [T, 3], mm."""
    reach_T: np.ndarray
    """float [T]: how near a found point must be, mm."""

    def __post_init__(self) -> None:
        m, t = len(self.scores_M), len(self.reach_T)
        if self.found_M3.shape != (m, 3) or self.lesions_T3.shape != (t, 3):
            raise ShapeError(
                f"{m} score(s) and {t} reach(es) need points [{m}, 3] and lesions [{t}, 3], got {self.found_M3.shape} and {self.lesions_T3.shape}"
            )
        if not np.isfinite(self.scores_M).all():
            raise ShapeError("the scores of found points must be finite")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hits:
    """A scan's points sorted out."""

    lesion_scores: np.ndarray
    """float [T]: the best score of a point that hits the lesion; -inf where it is missed."""
    false_scores: np.ndarray
    """Scores of points that hit nothing."""


def match(scan: Scan) -> Hits:
    """Which lesions are hit by which scores, and which points hit none."""
    best = np.full(len(scan.reach_T), -np.inf)
    false = []
    for point, score in zip(scan.found_M3, scan.scores_M, strict=True):
        distance = np.linalg.norm(scan.lesions_T3 - point, axis=1)
        reachable = np.where(distance <= scan.reach_T, distance, np.inf)
        if len(reachable) and np.isfinite(reachable).any():
            hit = int(reachable.argmin())
            best[hit] = max(best[hit], score)
        else:
            false.append(score)
    return Hits(lesion_scores=best, false_scores=np.array(false, np.float64))


def froc(scans: Sequence[Hits]) -> tuple[np.ndarray, np.ndarray]:
    """The curve: false positives a scan (ascending, from 0) and the sensitivity reached at each;
    sensitivity is NaN without lesions."""
    lesions = np.concatenate([s.lesion_scores for s in scans]) if scans else np.zeros(0)
    false = np.concatenate([s.false_scores for s in scans]) if scans else np.zeros(0)
    thresholds = np.unique(np.concatenate([lesions[np.isfinite(lesions)], false]))[::-1]
    rates = np.concatenate(([0.0], _at_least(thresholds, false) / len(scans))) if scans else np.zeros(1)
    if not len(lesions):
        return rates, np.full(len(rates), math.nan)
    return rates, np.concatenate(([0.0], _at_least(thresholds, lesions) / len(lesions)))


def _at_least(thresholds: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How many scores reach each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")


def sensitivity_at(scans: Sequence[Hits], false_positives: float = 0.5) -> float:
    """The best sensitivity with at most so many false positives a scan; NaN without lesions."""
    rates, sensitivity = froc(scans)
    return float(sensitivity[rates <= false_positives].max())
