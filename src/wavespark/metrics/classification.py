"""How well scores rank: the area under the ROC curve, ties counted half."""

import math

import numpy as np
from scipy.stats import rankdata

from wavespark.errors import ShapeError


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties half; NaN unless there are both
    (Hanley and McNeil, Radiology 143, 1982).

    Args:
        scores: float [N], finite.
        positive: bool or 0/1 [N].

    >>> auc(np.array([0.1, 0.9, 0.4]), np.array([0, 1, 1]))
    1.0

    Raises:
        ShapeError: if the shapes differ or a score is not finite.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive).astype(bool)
    if scores.shape != positive.shape or scores.ndim != 1:
        raise ShapeError(f"AUC needs one score a row, got {scores.shape} scores and {positive.shape} labels")
    if not np.isfinite(scores).all():
        raise ShapeError(f"AUC needs finite scores, {int((~np.isfinite(scores)).sum())} of {len(scores)} are not")
    n = int(positive.sum())
    m = len(positive) - n
    if not n or not m:
        return math.nan
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * m))


def aucs(scores: np.ndarray, positive: np.ndarray) -> list[float]:
    """The AUC of each label.

    Args:
        scores: float [N, L].
        positive: bool or 0/1 [N, L].

    Raises:
        ShapeError: if the shapes differ.
    """
    if scores.shape != positive.shape or scores.ndim != 2:
        raise ShapeError(f"one score a row and label is needed, got {scores.shape} scores and {positive.shape} labels")
    return [auc(s, p) for s, p in zip(scores.T, positive.T, strict=True)]


def balanced_accuracy(chosen: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the classes that occur of the share of their rows that are right; NaN without
    rows."""
    chosen, truth = np.asarray(chosen), np.asarray(truth)
    shares = [float((chosen[truth == c] == c).mean()) for c in np.unique(truth)]
    return float(np.mean(shares)) if shares else math.nan
