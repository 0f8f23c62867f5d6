"""The score of the RSNA 2025 intracranial aneurysm challenge: 13 locations count once, `Aneurysm
Present` counts 13 times."""

import math

import numpy as np

from wavespark.errors import ShapeError
from wavespark.metrics.classification import aucs

PRESENT_WEIGHT = 13.0
LOCATIONS = 13


def rsna_score(scores: np.ndarray, positive: np.ndarray) -> float:
    """Weighted mean of the AUCs, which is 0.5 x (AUC of the last label + mean AUC of the 13
    others).

    A label without positives or without negatives has no AUC; it is left out with its weight. NaN
    if none is left.

    Args:
        scores: float [N, 14], `Aneurysm Present` last.
        positive: 0 or 1 [N, 14].

    Raises:
        ShapeError: if there are not 14 columns, or the shapes differ.
    """
    if scores.ndim != 2 or scores.shape[1] != LOCATIONS + 1:
        raise ShapeError(f"the RSNA score needs {LOCATIONS + 1} labels a row, got {scores.shape}")
    each = np.array(aucs(scores, positive))
    weights = np.array([1.0] * LOCATIONS + [PRESENT_WEIGHT])
    there = np.isfinite(each)
    return float(np.average(each[there], weights=weights[there])) if there.any() else math.nan
