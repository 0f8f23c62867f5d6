"""Predictions against labels: the figures of the task, each with a 95 % interval over patients.

Segmentations are compared on the source's own grid.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from wavespark.config.downstream import FinetuneSettings
from wavespark.downstream.classify import Classify, with_targets
from wavespark.downstream.detect import Detect, Finds
from wavespark.downstream.figures import Row, figures, intervals, make_row
from wavespark.downstream.fitting import Task
from wavespark.downstream.items import LabelFiles, Labelled, read_labels_of, with_points
from wavespark.downstream.labels import LabelTable, quoted
from wavespark.downstream.prediction import INDEX
from wavespark.downstream.regress import Regress, with_values
from wavespark.downstream.saving import make_task
from wavespark.downstream.segment import Segment, map_scores
from wavespark.downstream.study import figure_names
from wavespark.errors import SettingsError
from wavespark.prepare import Store, StoredVolume
from wavespark.prepare.labels import resample_labels
from wavespark.progress import OnProgress, ignore_progress
from wavespark.volumes import spacing_of


def evaluate(
    predictions: Path,
    store: Store,
    table: LabelTable,
    column: str = "label",
    *,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, Any]:
    """Compare predictions with labels.

    Args:
        predictions: a folder that `wavespark predict` wrote.
        store: the store that was predicted.
        table: labels of its volumes.
        column: of the table with the segmentation files (segmentation only).
        on_progress: called with (done, total, message).

    Raises:
        SettingsError: if the folder holds no predictions, or none of them is labelled.
    """
    task, found = read_predictions(predictions)
    truths = _truths(task, table, store)
    named = [row.volume for row in table.rows]
    rows: list[Row] = []
    missing = sorted(set(named) - set(found))
    both = [name for name in dict.fromkeys(named) if name in found]
    if not both:
        raise SettingsError(f"none of the {len(set(named))} labelled volume(s) was predicted in {predictions}")
    for number, name in enumerate(both):
        on_progress(number, len(both), f"{number} of {len(both)} volumes")
        if isinstance(task, Segment):
            rows += _segmentation_row(task, found[name], store[name], table, name, column)
        elif name in truths:
            on_grid = _finds(found[name], truths[name].volume) if isinstance(task, Detect) else found[name]
            rows.append(make_row(task, on_grid, truths[name]))
    if not rows:
        raise SettingsError(f"{table.name} holds no label for the {len(both)} volume(s) that were predicted")
    on_progress(len(both), len(both), f"{len(both)} volumes")
    each = intervals(figures(task, rows), [row["patient"] for row in rows])
    return {
        "task": task.describe(),
        "main": task.main,
        "volumes": len(rows),
        "patients": len({row["patient"] for row in rows}),
        "not_predicted": len(missing),
        "figure_names": figure_names(task),
        "figures": {name: interval.to_json() for name, interval in each.items()},
        "rows": rows,
    }


def read_predictions(folder: Path) -> tuple[Task, dict[str, Any]]:
    """Read the task, and the prediction of each volume id: a segmentation file, probabilities [L],
    or points (mm [M, 3], scores [M]).

    Raises:
        SettingsError: if there are none, or they are damaged.
    """
    try:
        document = json.loads((folder / INDEX).read_bytes())
        task = make_task(document["task"], FinetuneSettings())
        return task, {str(row["id"]): _content(task, row, folder) for row in document["volumes"]}
    except OSError:
        raise SettingsError(
            f"{folder} holds no predictions: give the folder that `wavespark predict --output` wrote"
        ) from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, SettingsError):
        raise SettingsError(f"{folder / INDEX} is damaged: predict again") from None


def _content(task: Task, row: dict[str, Any], folder: Path) -> Any:
    if isinstance(task, Segment):
        return folder / Path(row["file"]).name  # never outside of the folder
    if isinstance(task, Classify):
        chance = np.array(row["probabilities"], np.float64)
        if chance.shape != (len(task.names),) or not np.isfinite(chance).all():
            raise ValueError("one probability a label")
        return chance
    if isinstance(task, Regress):
        estimate = float(row["estimate"])
        if not np.isfinite(estimate):
            raise ValueError("a finite estimate")
        return estimate
    mm = np.array([p["xyz_mm"] for p in row["points"]], np.float64).reshape(-1, 3)
    scores = np.array([p["score"] for p in row["points"]], np.float64)
    if scores.shape != (len(mm),) or not (np.isfinite(mm).all() and np.isfinite(scores).all()):
        raise ValueError("one score a point")
    return mm, scores


def _truths(task: Task, table: LabelTable, store: Store) -> dict[str, Labelled]:
    if isinstance(task, Classify):
        columns = (
            task.names if not task.exclusive else tuple(c for c in table.columns if _holds(table, c, task.names))[:1]
        )
        if not columns:
            raise SettingsError(f"no column of {table.name} holds the classes {', '.join(task.names)}")
        items, names, _ = with_targets(table, store, columns)
        return {i.volume.id: i for i in (_in_order(i, names, task.names) for i in items)}
    if isinstance(task, Regress):
        return {i.volume.id: i for i in with_values(table, store, task.name)}
    if isinstance(task, Detect):
        return {i.volume.id: i for i in with_points(table, store)}
    return {}


def _holds(table: LabelTable, column: str, names: tuple[str, ...]) -> bool:
    words = {row.values[column] for row in table.rows} - {""}
    return bool(words) and words <= set(names)


def _in_order(item: Labelled, names: tuple[str, ...], wanted: tuple[str, ...]) -> Labelled:
    """Put targets in the order of the task's names; classes that the table does not have are
    off."""
    known = dict(zip(names, item.targets if item.targets is not None else (), strict=True))
    return Labelled(volume=item.volume, targets=np.array([known.get(n, 0.0) for n in wanted], np.float32))


def _finds(points: tuple[np.ndarray, np.ndarray], volume: StoredVolume) -> Finds:
    """Points in mm as they were found on the stored grid."""
    mm, scores = points
    back = np.linalg.inv(volume.affine)
    return Finds(index_M3=(mm @ back[:3, :3].T + back[:3, 3]).astype(np.float32), scores_M=scores)


def _segmentation_row(
    task: Segment, path: Path, volume: StoredVolume, table: LabelTable, name: str, column: str
) -> list[Row]:
    table.require(column)
    rows, files = [], LabelFiles(table)
    for row in table.rows:
        if row.volume != name or not row.values[column]:
            continue
        found, grid = read_labels_of(path, f"the prediction of {volume.id}")
        text = row.values[column]
        truth, affine = read_labels_of(files.path(text, row.line), f"{table.name}, line {row.line}: {quoted(text)}")
        if truth.shape != found.shape or not np.allclose(affine, grid, atol=1e-3):
            truth = resample_labels(truth, affine, volume.source_shape, grid)
        d, h, w = spacing_of(grid)
        scores = map_scores(found, truth, (d, h, w), range(1, task.classes))
        rows.append(
            {
                "volume": name,
                "patient": volume.patient,
                "scores": {k: v if np.isfinite(v) else None for k, v in scores.items()},
            }
        )
    return rows
