"""Figures of a test set from the predictions of its volumes, with intervals over patients.

A row is plain values, ready for JSON: `volume`, `patient`, `scores`; for classification also
`probabilities` and `targets`, for detection `lesion_scores` and `false_scores`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from wavespark.downstream.classify import Classify
from wavespark.downstream.detect import Detect
from wavespark.downstream.fitting import Task
from wavespark.downstream.items import Labelled
from wavespark.downstream.regress import Regress, value_of
from wavespark.metrics.classification import auc, balanced_accuracy
from wavespark.metrics.detection import Hits, sensitivity_at
from wavespark.metrics.intervals import Interval, bootstrap
from wavespark.metrics.rsna import LOCATIONS, rsna_score

Row = dict[str, Any]
Figure = Callable[[np.ndarray], float]
"""int64 row numbers, with repeats -> figure."""

PRESENT = "Aneurysm Present"
FALSE_POSITIVES = 0.5
_DRAWS = 1000


def make_row(task: Task, found: Any, item: Labelled) -> Row:
    """Build the row of a volume: its scores, and prediction and truth where the figures need
    them."""
    row: Row = {
        "volume": item.volume.id,
        "patient": item.volume.patient,
        "scores": {k: _plain(v) for k, v in task.scores(found, item).items()},
    }
    if isinstance(task, Classify):
        row["probabilities"] = [round(float(p), 8) for p in found]
        row["targets"] = [_plain(t) for t in item.targets] if item.targets is not None else []
    if isinstance(task, Regress):
        row["estimate"], row["value"] = _plain(found), _plain(value_of(item))
    if isinstance(task, Detect):
        hits = task.hits(found, item)
        row["lesion_scores"] = [_plain(s) for s in hits.lesion_scores]
        row["false_scores"] = [float(s) for s in hits.false_scores]
    return row


def _plain(value: Any) -> float | None:
    return round(float(value), 8) if math.isfinite(value) else None


def figures(task: Task, rows: Sequence[Row]) -> dict[str, Figure]:
    """Return every figure of the task as a function of the rows that count."""
    if isinstance(task, Classify):
        return _of_labels(task, rows)
    if isinstance(task, Regress):
        return _of_numbers(rows)
    if isinstance(task, Detect):
        hits = [_hits(row) for row in rows]
        return {"sensitivity": lambda chosen: sensitivity_at([hits[k] for k in chosen], FALSE_POSITIVES)}
    names = dict.fromkeys(name for row in rows for name in row["scores"])
    return {name: _mean_of(rows, name) for name in names}


def _mean_of(rows: Sequence[Row], name: str) -> Figure:
    values = np.array([np.nan if row["scores"].get(name) is None else row["scores"][name] for row in rows], np.float64)

    def mean(chosen: np.ndarray) -> float:
        kept = values[chosen]
        kept = kept[np.isfinite(kept)]
        return float(kept.mean()) if len(kept) else math.nan

    return mean


def _hits(row: Row) -> Hits:
    at = [-np.inf if s is None else s for s in row["lesion_scores"]]
    return Hits(lesion_scores=np.array(at, np.float64), false_scores=np.array(row["false_scores"], np.float64))


def _of_labels(task: Classify, rows: Sequence[Row]) -> dict[str, Figure]:
    chance = np.array([row["probabilities"] for row in rows], np.float64)
    truth = np.array([[np.nan if t is None else t for t in row["targets"]] for row in rows], np.float64)

    def one(i: int, chosen: np.ndarray) -> float:
        p, t = chance[chosen, i], truth[chosen, i]
        known = np.isfinite(t)
        return auc(p[known], t[known]) if known.any() else math.nan

    def mean_auc(chosen: np.ndarray) -> float:
        found = np.array([one(i, chosen) for i in range(truth.shape[1])])
        return float(np.nanmean(found)) if np.isfinite(found).any() else math.nan

    result: dict[str, Figure] = {"auc": mean_auc}
    if task.exclusive:
        result["accuracy"] = lambda chosen: balanced_accuracy(chance[chosen].argmax(1), truth[chosen].argmax(1))
    elif len(task.names) == LOCATIONS + 1 and task.names[-1] == PRESENT and np.isfinite(truth).all():
        result["rsna"] = lambda chosen: rsna_score(chance[chosen], truth[chosen])
    if len(task.names) <= 20 and not task.exclusive:
        for i, name in enumerate(task.names):
            result[f"auc {name}"] = partial(one, i)
    return result


def _of_numbers(rows: Sequence[Row]) -> dict[str, Figure]:
    """Mean absolute error, R2, and the error of always answering the mean of the training
    volumes."""
    estimate, value = (np.array([row[key] for row in rows], np.float64) for key in ("estimate", "value"))

    def r2(chosen: np.ndarray) -> float:
        spread = float(((value[chosen] - value[chosen].mean()) ** 2).sum())
        return 1 - float(((estimate[chosen] - value[chosen]) ** 2).sum()) / spread if spread else math.nan

    return {
        "mae": _mean_of(rows, "absolute_error"),
        "r2": r2,
        "mae_of_mean": _mean_of(rows, "absolute_error_of_mean"),
    }


def over_seeds(task: Task, runs: Sequence[Sequence[Row]]) -> dict[str, Figure]:
    """Return each figure as its mean over runs (same volumes, same order)."""
    of_run = [figures(task, rows) for rows in runs]

    def mean(name: str) -> Figure:
        def figure(chosen: np.ndarray) -> float:
            values = [f[name](chosen) for f in of_run if name in f]
            values = [v for v in values if math.isfinite(v)]
            return float(np.mean(values)) if values else math.nan

        return figure

    return {name: mean(name) for name in dict.fromkeys(name for f in of_run for name in f)}


def intervals(found: Mapping[str, Figure], patients: Sequence[str], seed: int = 0) -> dict[str, Interval]:
    """Return each figure of all rows with its 95 % interval."""
    return {name: bootstrap(figure, patients, draws=_DRAWS, seed=seed) for name, figure in found.items()}


def gain(ours: Figure, theirs: Figure, patients: Sequence[str], seed: int = 0) -> Interval:
    """Return the difference of two figures on the same patients, with its 95 % interval."""
    return bootstrap(lambda rows: ours(rows) - theirs(rows), patients, draws=_DRAWS, seed=seed)
