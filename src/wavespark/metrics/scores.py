"""Figures of out-of-fold predictions as functions of patient weights, so that all arms of a table
share one bootstrap.

A draw of the bootstrap gives each row a weight: how often its patient was drawn. Every figure here
is computed for all draws at once. Legend: B draws, R repeats, N rows, K classes.
"""

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from wavespark.errors import ShapeError
from wavespark.metrics.intervals import DRAWS, Interval
from wavespark.randomness import stream

Figure = Callable[[np.ndarray], np.ndarray]
"""Weights [B, N] -> figure of each draw [B]; NaN where it cannot be computed."""


def patient_weights(patients: Sequence[Hashable], *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Weights of a bootstrap over patients (Efron and Tibshirani, 1993, ch. 8).

    Args:
        patients: patient of each row.
        draws: how often patients are drawn with replacement.
        seed: random seed.

    Returns:
        float64 [1 + B, N]: all ones, then how often the patient of each row was drawn.

    Raises:
        ShapeError: if there is no row.
    """
    if not len(patients):
        raise ShapeError("an interval needs at least one row, got 0")
    names = sorted(set(patients), key=str)
    place = {name: k for k, name in enumerate(names)}
    rows = np.array([place[p] for p in patients])
    drawn = stream(seed, purpose="bootstrap").integers(len(names), size=(draws, len(names)))
    counts = np.stack([np.bincount(draw, minlength=len(names)) for draw in drawn])
    return np.vstack([np.ones((1, len(rows))), counts[:, rows]])


def interval_of(figure: Figure, weights_BN: np.ndarray, patients: int) -> Interval:
    """The figure with its 95 % interval over the draws; no interval with one patient or where half
    the draws have no figure.

    Args:
        figure: see `Figure`.
        weights_BN: of `patient_weights`.
        patients: how many were drawn from.
    """
    values = np.asarray(figure(weights_BN), np.float64)
    value, drawn = float(values[0]), values[1:]
    drawn = drawn[np.isfinite(drawn)]
    if patients < 2 or 2 * len(drawn) < len(values) - 1 or not len(drawn):
        return Interval(value=value, low=math.nan, high=math.nan, patients=patients)
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    return Interval(value=value, low=low, high=high, patients=patients)


def difference(ours: Figure, theirs: Figure) -> Figure:
    """The figure `ours - theirs` on the same draws."""
    return lambda weights: ours(weights) - theirs(weights)


def mean_figure(figures: Sequence[Figure]) -> Figure:
    """The mean of several figures on the same draws, for example over random seeds."""
    return lambda weights: np.mean([figure(weights) for figure in figures], axis=0)


def balanced_accuracy_figure(predicted_RN: np.ndarray, truth_N: np.ndarray) -> Figure:
    """Mean over the classes of the share of rows that are predicted right, averaged over the
    repeats.

    Args:
        predicted_RN: predicted class numbers of each repeat.
        truth_N: class numbers.
    """
    right = (predicted_RN == truth_N).mean(0)
    members = np.stack([truth_N == c for c in np.unique(truth_N)], 1).astype(np.float64)

    def figure(weights: np.ndarray) -> np.ndarray:
        total = weights @ members
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = (weights * right) @ members / total
        return _mean_of_finite(recall)

    return figure


def auc_figure(chance_RNK: np.ndarray, truth_N: np.ndarray, folds_RN: np.ndarray) -> Figure:
    """Area under the ROC curve, one class against the rest, mean over the classes; two classes have
    one.

    Only rows of one fold are compared: scores of different models have no common scale, and pooling
        them puts a constant predictor below 0.5. Ties count half.

    Args:
        chance_RNK: out-of-fold probabilities.
        truth_N: class numbers.
        folds_RN: fold of each row.
    """
    classes = range(chance_RNK.shape[2]) if chance_RNK.shape[2] > 2 else (1,)

    def figure(weights: np.ndarray) -> np.ndarray:
        each = []
        for c in classes:
            right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
            for chance, folds in zip(chance_RNK, folds_RN, strict=True):
                for fold in np.unique(folds):
                    rows = np.flatnonzero(folds == fold)
                    r, p = pairs_in_order(chance[rows, c], truth_N[rows] == c, weights[:, rows])
                    right, pairs = right + r, pairs + p
            with np.errstate(invalid="ignore", divide="ignore"):
                each.append(right / pairs)
        return _mean_of_finite(np.stack(each, 1))

    return figure


def pairs_in_order(
    scores_N: np.ndarray, positive_N: np.ndarray, weights_BN: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count the pairs of a positive and a negative row, and those of them in which the positive
    scores higher (ties half).

    Args:
        scores_N: scores.
        positive_N: bool.
        weights_BN: weight of each row in each draw.

    Returns:
        Weighted numbers of pairs in order and of all pairs, each [B].
    """
    order = np.argsort(scores_N, kind="stable")
    scores, weights = scores_N[order], weights_BN[:, order]
    positive = weights * positive_N[order]
    negative = weights - positive
    if not len(scores):
        return np.zeros(len(weights)), np.zeros(len(weights))
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    above, level = np.add.reduceat(positive, starts, axis=1), np.add.reduceat(negative, starts, axis=1)
    below = level.cumsum(1) - level
    return (above * (below + 0.5 * level)).sum(1), positive.sum(1) * negative.sum(1)


def mae_figure(predicted_RN: np.ndarray, truth_N: np.ndarray) -> Figure:
    """Mean absolute error, in the unit of the target, averaged over the repeats."""
    error = np.abs(predicted_RN - truth_N).mean(0)
    return lambda weights: weights @ error / weights.sum(1)


def r2_figure(predicted_RN: np.ndarray, truth_N: np.ndarray) -> Figure:
    """Share of the variance that is predicted, 1 - residual / total sum of squares, averaged over
    the repeats."""
    squared = ((predicted_RN - truth_N) ** 2).mean(0)

    def figure(weights: np.ndarray) -> np.ndarray:
        mean = weights @ truth_N / weights.sum(1)
        total = weights @ truth_N**2 - weights.sum(1) * mean**2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 1e-12 * (weights @ truth_N**2), 1 - weights @ squared / total, np.nan)

    return figure


def _mean_of_finite(values_BK: np.ndarray) -> np.ndarray:
    """Mean over the finite values of each row; NaN where there is none."""
    finite = np.isfinite(values_BK)
    count = finite.sum(1)
    return np.where(count > 0, np.where(finite, values_BK, 0).sum(1) / np.maximum(count, 1), np.nan)


def class_figures(chance_RNK: np.ndarray, truth_N: np.ndarray, folds_RN: np.ndarray) -> dict[str, Figure]:
    """Figures of a classification: `balanced_accuracy` and `auc`. Arguments as `auc_figure`."""
    return {
        "balanced_accuracy": balanced_accuracy_figure(chance_RNK.argmax(2), truth_N),
        "auc": auc_figure(chance_RNK, truth_N, folds_RN),
    }


def number_figures(predicted_RN: np.ndarray, truth_N: np.ndarray) -> dict[str, Figure]:
    """Figures of a regression: `mae` and `r2`. Arguments as `mae_figure`."""
    return {"mae": mae_figure(predicted_RN, truth_N), "r2": r2_figure(predicted_RN, truth_N)}


SMALLER_IS_BETTER = ("mae",)


def gain_figure(name: str, ours: Figure, theirs: Figure) -> Figure:
    """By how much `ours` is better than `theirs`: above zero is better, for errors too."""
    return difference(theirs, ours) if name in SMALLER_IS_BETTER else difference(ours, theirs)
