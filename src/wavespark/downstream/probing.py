"""What frozen features know about a column of labels, level by level, beside the same network with random weights."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from wavespark.downstream.features import store_features
from wavespark.downstream.heads import untrained
from wavespark.downstream.labels import LabelTable
from wavespark.errors import SettingsError
from wavespark.metrics.classification import aucs, balanced_accuracy
from wavespark.metrics.intervals import Interval, bootstrap
from wavespark.metrics.probes import Fit, Probe, knn, linear, probe
from wavespark.models import Encoder
from wavespark.prepare import Store, StoredVolume
from wavespark.progress import OnProgress, ignore_progress

_FEW = 25
"""Rows below which one neighbour is asked: five would be most of a class."""


def kinds(rows: int) -> dict[str, Fit]:
    """The probes for so many rows."""
    return {"knn": partial(knn, k=1) if rows < _FEW else knn, "linear": linear}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeRow:
    """One probe of one level of one encoder."""

    encoder: str
    """`pre-trained` or `scratch`."""
    level: int
    """0 is the finest; -1 is all levels side by side."""
    stride: int
    """Voxels per token; 0 for all levels."""
    probe: str
    """`knn` or `linear`."""
    accuracy: Interval
    """Balanced accuracy."""
    auc: Interval
    """Mean over the classes of one against the rest."""
    gain: Interval | None = None
    """Balanced accuracy minus that of the scratch control, on the same volumes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeReport:
    """All probes of a column."""

    column: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    """Volumes of each class."""
    patients: int
    rows: tuple[ProbeRow, ...]
    left_out: int
    """Volumes that the encoder has no stem for."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "column": self.column,
            "classes": dict(zip(self.classes, self.counts, strict=True)),
            "patients": self.patients,
            "left_out": self.left_out,
            "chance": round(1 / len(self.classes), 4),
            "rows": [
                {
                    "encoder": r.encoder,
                    "level": r.level,
                    "stride": r.stride,
                    "probe": r.probe,
                    "balanced_accuracy": r.accuracy.to_json(),
                    "auc": r.auc.to_json(),
                    "gain": None if r.gain is None else r.gain.to_json(),
                }
                for r in self.rows
            ],
        }


def probe_column(
    encoder: Encoder,
    store: Store,
    table: LabelTable,
    column: str,
    *,
    levels: Sequence[int] | None = None,
    tile: int = 64,
    seed: int = 0,
    control: bool = True,
    on_progress: OnProgress = ignore_progress,
) -> ProbeReport:
    """Every probe of every level, cross-validated by patient, with 95 % intervals over patients.

    Args:
        encoder: frozen.
        store: prepared volumes.
        table: labels of its volumes.
        column: of the table; words or whole numbers, empty = unknown.
        levels: which levels (0 is the finest); all, and all side by side, if None.
        tile: voxels along each edge of a piece that is encoded at once.
        seed: of the folds, the control's weights and the intervals.
        control: also probe the same network with random weights.
        on_progress: called with (done, total, message).

    Raises:
        SettingsError: if the column is missing, or has fewer than two classes or patients.
    """
    volumes, labels, left_out = labelled_volumes(encoder, store, table, column)
    patients = [v.patient for v in volumes]
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2 or len(set(patients)) < 2:
        raise SettingsError(
            f"a probe needs two classes and two patients; column {column!r} gives {len(classes)} class(es) of {len(set(patients))} patient(s)"
        )
    chosen, device = _levels(encoder, levels), next(encoder.parameters()).device
    arms = {"pre-trained": encoder} | ({"scratch": untrained(encoder, seed).to(device)} if control else {})
    total, rows = len(volumes) * len(arms), []
    found: dict[tuple[str, int, str], Probe] = {}
    for number, (arm, network) in enumerate(arms.items()):

        def say(done: float, of: float, text: str, base: int = number * len(volumes), arm: str = arm) -> None:
            on_progress(base + done, total, f"{arm}: {text}")

        features = store_features(network, volumes, (tile, tile, tile), say)
        for level in chosen:
            matrix = np.concatenate(features, 1) if level < 0 else features[level]
            for kind, method in kinds(len(labels)).items():
                found[arm, level, kind] = probe(matrix, labels, patients, method, seed=seed)
    for (arm, level, kind), one in found.items():
        truth = np.array([one.classes.index(label) for label in labels])
        onehot = np.eye(len(classes))[truth]
        gain = None
        if control and arm == "pre-trained":
            gain = _gain(one.chosen, found["scratch", level, kind].chosen, truth, patients, seed)
        rows.append(
            ProbeRow(
                encoder=arm,
                level=level,
                stride=0 if level < 0 else encoder.strides[level],
                probe=kind,
                accuracy=one.accuracy,
                auc=bootstrap(_mean_auc(one.probabilities, onehot), patients, draws=500, seed=seed),
                gain=gain,
            )
        )
    return ProbeReport(
        column=column,
        classes=classes,
        counts=tuple(labels.count(c) for c in classes),
        patients=len(set(patients)),
        rows=tuple(rows),
        left_out=left_out,
    )


def _mean_auc(probabilities: np.ndarray, onehot: np.ndarray) -> Callable[[np.ndarray], float]:
    def mean(rows: np.ndarray) -> float:
        each = np.array(aucs(probabilities[rows], onehot[rows]))
        return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")

    return mean


def _gain(ours: np.ndarray, theirs: np.ndarray, truth: np.ndarray, patients: Sequence[Hashable], seed: int) -> Interval:
    return bootstrap(
        lambda rows: balanced_accuracy(ours[rows], truth[rows]) - balanced_accuracy(theirs[rows], truth[rows]),
        patients,
        draws=1000,
        seed=seed,
    )


def labelled_volumes(
    encoder: Encoder, store: Store, table: LabelTable, column: str
) -> tuple[list[StoredVolume], list[str], int]:
    """Volumes with a word in the column, the words, and how many the encoder has no stem for.

    Raises:
        SettingsError: if the column is missing or two rows of a volume disagree.
    """
    table.require(column)
    volumes, labels, left_out = [], [], 0
    for name, rows in table.by_volume().items():
        words = {row.values[column] for row in rows if row.values[column]}
        if len(words) > 1:
            raise SettingsError(
                f"{table.name}: lines {rows[0].line} and {rows[-1].line} give one volume different values of {column!r}"
            )
        if not words:
            continue
        volume = store[name]
        if encoder.stem_channels.get(volume.modality, encoder.stem_channels.get("any")) != volume.channels:
            left_out += 1
            continue
        volumes.append(volume)
        labels.append(words.pop())
    if len(set(labels)) > 100:
        raise SettingsError(
            f"{table.name}: column {column!r} holds {len(set(labels))} different values; a probe tells up to 100 classes apart"
        )
    return volumes, labels, left_out


def _levels(encoder: Encoder, levels: Sequence[int] | None) -> list[int]:
    count = len(encoder.channels)
    if levels is None:
        return [*range(count), -1]
    for level in levels:
        if not -1 <= level < count:
            raise SettingsError(
                f"there is no level {level}: the encoder has 0 (finest) to {count - 1}, and -1 is all side by side"
            )
    return list(levels)
