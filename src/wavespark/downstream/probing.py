"""Probes of frozen features for a column of labels, beside random weights, intensities and a
constant predictor."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from wavespark.downstream.features import (
    DEFAULT_POOLS,
    TILE,
    check_pools,
    intensity_features,
    log_volume,
    store_features,
)
from wavespark.downstream.heads import untrained
from wavespark.downstream.labels import LabelRow, LabelTable
from wavespark.errors import SettingsError
from wavespark.metrics.folds import patient_folds
from wavespark.metrics.intervals import Interval
from wavespark.metrics.probes import classifiers, out_of_fold, regressors
from wavespark.metrics.scores import (
    Figure,
    class_figures,
    gain_figure,
    interval_of,
    mean_figure,
    number_figures,
    patient_weights,
)
from wavespark.models import Encoder
from wavespark.prepare import Store, StoredVolume
from wavespark.progress import OnProgress, ignore_progress

TaskName = Literal["auto", "classification", "regression"]
TASKS = ("auto", "classification", "regression")
OURS, SCRATCH, INTENSITIES, VOLUME, CONSTANT = "pre-trained", "scratch", "intensities", "volume", "constant"
"""Arms of a table: the encoder; the same network with random weights; histogram and volume of the
foreground; its volume
alone; the most frequent class or the mean."""
CONTROL_SEEDS = 3
"""Random initialisations of the scratch control; its figures are their mean."""
FOLDS = 6
_MAX_CLASSES = 100
_FEW_VALUES = 10
_DRAWS = 1000
_MAX_REPEATS, _ROWS_FOR_ONE_REPEAT = 20, 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbePlan:
    """Settings of a probe."""

    task: TaskName = "auto"
    """`auto` takes a column of numbers with more than 10 values, or more values than half its rows,
    for a regression."""
    levels: tuple[int, ...] | None = None
    """Levels to read: 0 is the finest, -1 all side by side; None = each, and all side by side."""
    pools: tuple[str, ...] = DEFAULT_POOLS
    """How tokens are pooled; see `features.pool_tokens`."""
    tile: int = TILE
    """Voxels along each edge of a piece that is encoded at once."""
    folds: int = FOLDS
    """Parts of the patients in a repeat."""
    repeats: int | None = None
    """Repeats of the cross-validation; None = 20, fewer from 50 volumes on, one from 1000 on."""
    seed: int = 0
    """Random seed of folds, scratch weights and intervals."""
    control: bool = True
    """Also probe the same network with random weights."""

    def __post_init__(self) -> None:
        check_pools(self.pools)
        if self.task not in TASKS:
            raise SettingsError(f"task {self.task!r} must be one of {', '.join(TASKS)}")
        if self.folds < 2 or self.tile < 8 or (self.repeats is not None and self.repeats < 1):
            raise SettingsError(
                f"folds {self.folds} must be at least 2, repeats {self.repeats} at least 1, tile {self.tile} at least 8"
            )

    def repeats_for(self, rows: int) -> int:
        """Repeats of the cross-validation of so many rows."""
        return self.repeats or max(1, min(_MAX_REPEATS, _ROWS_FOR_ONE_REPEAT // max(rows, 1)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Question:
    """Volumes and what is to be predicted of each."""

    volumes: tuple[StoredVolume, ...]
    targets: np.ndarray
    """int64 [N] class numbers, or float64 [N]."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty for numbers."""
    left_out: int = 0
    """Volumes with a label for which the encoder has no stem."""

    @property
    def numeric(self) -> bool:
        """True for a regression."""
        return not self.classes

    @property
    def patients(self) -> list[str]:
        """Patient of each volume."""
        return [v.patient for v in self.volumes]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeRow:
    """One probe of one arm."""

    encoder: str
    """`pre-trained`, `scratch`, or a control without a network: `intensities`, `volume`,
    `constant`."""
    level: int | None
    """0 is the finest; -1 is all levels side by side; None without a network."""
    stride: int
    """Voxels per token; 0 for all levels or without a network."""
    probe: str
    """`knn` or `linear` (logistic or ridge regression); `majority` or `mean` for the constant."""
    figures: Mapping[str, Interval]
    """`balanced_accuracy` and `auc`, or `mae` and `r2`."""
    gains: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """Control -> figure -> by how much this row is better than the same probe of the control, on
    the same patients."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; `gain` is the main figure's gain over scratch."""
        main = next(iter(self.figures))
        over = self.gains.get(SCRATCH)
        return {
            "encoder": self.encoder,
            "level": self.level,
            "stride": self.stride,
            "probe": self.probe,
            **{name: i.to_json() for name, i in self.figures.items()},
            "gain": None if over is None else over[main].to_json(),
            "gains": {arm: {name: i.to_json() for name, i in each.items()} for arm, each in self.gains.items()},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeReport:
    """All probes of a column."""

    column: str
    question: Question
    plan: ProbePlan
    repeats: int
    rows: tuple[ProbeRow, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Volumes of each class; empty for numbers."""
        return {c: int((self.question.targets == k).sum()) for k, c in enumerate(self.question.classes)}

    @property
    def patients(self) -> int:
        """Number of patients."""
        return len(set(self.question.patients))

    @property
    def left_out(self) -> int:
        """Volumes that the encoder has no stem for."""
        return self.question.left_out

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        targets = self.question.targets
        if self.question.numeric:
            about: dict[str, Any] = {
                "target": {"mean": round(float(targets.mean()), 6), "deviation": round(float(targets.std()), 6)}
            }
        else:
            about = {"classes": self.counts, "chance": round(1 / len(self.question.classes), 4)}
        return {
            "column": self.column,
            "task": "regression" if self.question.numeric else "classification",
            **about,
            "volumes": len(targets),
            "patients": self.patients,
            "left_out": self.left_out,
            "folds": self.plan.folds,
            "repeats": self.repeats,
            "pools": list(self.plan.pools),
            "rows": [row.to_json() for row in self.rows],
        }


_Key = tuple[str, int | None, str]
"""Arm, level, probe."""


def probe_column(
    encoder: Encoder,
    store: Store,
    table: LabelTable,
    column: str,
    *,
    plan: ProbePlan | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ProbeReport:
    """Probe a column with nearest neighbours and a linear model, cross-validated by patient, with
    95 % intervals over patients.

    Args:
        encoder: frozen.
        store: prepared volumes.
        table: labels of its volumes.
        column: column of the table; words or numbers, empty = unknown.
        plan: settings.
        on_progress: called with (done, total, message).

    Returns:
        Rows of the encoder and of all controls.

    Raises:
        SettingsError: if the column is missing, has fewer than two classes or patients, or holds no
            numbers for a regression.
    """
    plan = plan or ProbePlan()
    levels = _levels(encoder, plan.levels)
    question = ask(encoder, store, table, column, plan.task)
    patients, repeats = question.patients, plan.repeats_for(len(question.volumes))
    folds_RN = patient_folds(
        patients, question.targets, numeric=question.numeric, folds=plan.folds, repeats=repeats, seed=plan.seed
    )
    figures: dict[_Key, dict[str, Figure]] = {}
    networks = _networks(encoder, plan)
    for number, (arm, seeds) in enumerate(networks.items()):
        each: list[dict[tuple[int, str], dict[str, Figure]]] = []
        for place, network in enumerate(seeds):
            base = number + place / len(seeds)

            def say(
                done: float, total: float, message: str, base: float = base, arm: str = arm, share: int = len(seeds)
            ) -> None:
                on_progress(base + done / total / share, len(networks), f"{arm}: {message}")

            matrices = store_features(network(), question.volumes, plan.tile, say, plan.pools)
            each.append(_probed(question, {i: _side_by_side(matrices, i) for i in levels}, folds_RN))
        for level, probe in each[0]:
            runs = [one[level, probe] for one in each]
            figures[arm, level, probe] = {name: mean_figure([run[name] for run in runs]) for name in runs[0]}
    figures |= _controls(question, folds_RN)
    on_progress(len(networks), len(networks), "intervals")
    weights = patient_weights(patients, draws=_DRAWS, seed=plan.seed)
    rows = tuple(_row(key, figures, encoder, weights, len(set(patients))) for key in figures)
    return ProbeReport(column=column, question=question, plan=plan, repeats=repeats, rows=rows)


def _networks(encoder: Encoder, plan: ProbePlan) -> dict[str, list[Any]]:
    """Arm -> functions that make its networks, so that one is held at a time."""
    device = next(encoder.parameters()).device
    fresh = [lambda seed=plan.seed + k: untrained(encoder, seed).to(device) for k in range(CONTROL_SEEDS)]
    return {OURS: [lambda: encoder]} | ({SCRATCH: fresh} if plan.control else {})


def _side_by_side(matrices: Sequence[np.ndarray], level: int) -> np.ndarray:
    return np.concatenate(matrices, 1) if level < 0 else matrices[level]


def _probed(
    question: Question, matrices: Mapping[int, np.ndarray], folds_RN: np.ndarray
) -> dict[tuple[int, str], dict[str, Figure]]:
    """Figures of both probes of each matrix."""
    return {
        (level, probe): probe_figures(question, matrix, probe, folds_RN)
        for level, matrix in matrices.items()
        for probe in ("knn", "linear")
    }


def probe_figures(question: Question, features_ND: np.ndarray, probe: str, folds_RN: np.ndarray) -> dict[str, Figure]:
    """Figures of one cross-validated probe.

    Args:
        question: targets and patients.
        features_ND: a row a volume.
        probe: `knn`, `linear` (chosen penalty) or `constant`.
        folds_RN: see `patient_folds`.
    """
    if question.numeric:
        fit = regressors(len(features_ND))[{"linear": "ridge", "constant": "mean"}.get(probe, probe)]
        return number_figures(
            out_of_fold(features_ND, question.targets, question.patients, folds_RN, fit), question.targets
        )
    name = {"linear": "logistic", "constant": "majority"}.get(probe, probe)
    fit = classifiers(len(features_ND), len(question.classes))[name]
    chance = out_of_fold(features_ND, question.targets, question.patients, folds_RN, fit)
    return class_figures(chance, question.targets, folds_RN)


def _controls(question: Question, folds_RN: np.ndarray) -> dict[_Key, dict[str, Figure]]:
    """Figures of the controls without a network."""
    figures: dict[_Key, dict[str, Figure]] = {}
    for arm, matrix in control_features(question.volumes).items():
        for probe in ("constant",) if arm == CONSTANT else ("knn", "linear"):
            name = probe if arm != CONSTANT else ("mean" if question.numeric else "majority")
            figures[arm, None, name] = probe_figures(question, matrix, probe, folds_RN)
    return figures


def control_features(volumes: Sequence[StoredVolume]) -> dict[str, np.ndarray]:
    """Features [N, D] of the controls without a network; volumes with other channels than the first
    cannot be compared.

    Raises:
        SettingsError: if the volumes do not all have the same number of channels.
    """
    sizes = np.array([[log_volume(v)] for v in volumes])
    controls = {VOLUME: sizes, CONSTANT: np.zeros((len(volumes), 1))}
    if len({v.channels for v in volumes}) > 1:
        return controls
    return {INTENSITIES: intensity_features(volumes)} | controls


def _row(
    key: _Key, figures: Mapping[_Key, Mapping[str, Figure]], encoder: Encoder, weights: np.ndarray, patients: int
) -> ProbeRow:
    arm, level, probe = key
    mine = figures[key]
    gains = {}
    for other in (SCRATCH, INTENSITIES, VOLUME, CONSTANT) if arm == OURS else ():
        theirs = next((f for k, f in figures.items() if _is_control_of(key, k, other)), None)
        if theirs is not None:
            gains[other] = {n: interval_of(gain_figure(n, mine[n], theirs[n]), weights, patients) for n in mine}
    return ProbeRow(
        encoder=arm,
        level=level,
        stride=0 if level is None or level < 0 else encoder.strides[level],
        probe=probe,
        figures={name: interval_of(figure, weights, patients) for name, figure in mine.items()},
        gains=gains,
    )


def _is_control_of(key: _Key, other: _Key, arm: str) -> bool:
    """True if `other` is the row of the arm that `key` is compared with: the same probe, and the
    same level if it has one."""
    return other[0] == arm and (arm == CONSTANT or other[2] == key[2]) and other[1] in (None, key[1])


def ask(encoder: Encoder, store: Store, table: LabelTable, column: str, task: TaskName = "auto") -> Question:
    """Collect the volumes with a label that the encoder has a stem for.

    Raises:
        SettingsError: see `probe_column`.
    """
    table.require(column)
    volumes, words, lines, left_out = [], [], [], 0
    for name, rows in table.by_volume().items():
        row = _label_row(table, rows, column)
        if row is None:
            continue
        volume = store[name]
        if encoder.stem_channels.get(volume.modality, encoder.stem_channels.get("any")) != volume.channels:
            left_out += 1
            continue
        volumes.append(volume)
        words.append(row.values[column])
        lines.append(row.line)
    numbers = np.array([_number(word) for word in words])
    numeric = task == "regression" or (task == "auto" and _looks_numeric(numbers))
    patients = len({v.patient for v in volumes})
    if numeric:
        _check_numbers(table, column, numbers, lines, patients)
        return Question(volumes=tuple(volumes), targets=numbers, left_out=left_out)
    classes = tuple(sorted(set(words)))
    if len(classes) > _MAX_CLASSES:
        raise SettingsError(
            f"{table.name}: column {column!r} holds {len(classes)} different values; a probe tells up to {_MAX_CLASSES} classes "
            "apart. For numbers add --task regression"
        )
    if len(classes) < 2 or patients < 2:
        raise SettingsError(
            f"a probe needs two classes and two patients; column {column!r} gives {len(classes)} class(es) of {patients} patient(s)"
        )
    targets = np.array([classes.index(word) for word in words])
    return Question(volumes=tuple(volumes), targets=targets, classes=classes, left_out=left_out)


def _label_row(table: LabelTable, rows: Sequence[LabelRow], column: str) -> LabelRow | None:
    """The first row of a volume with a label; None if there is none."""
    labelled = [row for row in rows if row.values[column]]
    if len({row.values[column] for row in labelled}) > 1:
        raise SettingsError(
            f"{table.name}: lines {labelled[0].line} and {labelled[-1].line} give one volume different values of {column!r}"
        )
    return labelled[0] if labelled else None


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _looks_numeric(numbers: np.ndarray) -> bool:
    values = len(set(numbers.tolist()))
    return (
        bool(len(numbers))
        and bool(np.isfinite(numbers).all())
        and (values > _FEW_VALUES or 2 * values > len(numbers) > 2)
    )


def _check_numbers(table: LabelTable, column: str, numbers: np.ndarray, lines: Sequence[int], patients: int) -> None:
    wrong = [line for line, number in zip(lines, numbers, strict=True) if not math.isfinite(number)]
    if wrong:
        raise SettingsError(
            f"{table.name}: column {column!r} holds no number in {len(wrong)} of {len(lines)} line(s), first in line {wrong[0]}: "
            "correct them, empty them, or use --task classification"
        )
    if len(set(numbers.tolist())) < 2 or patients < 2:
        raise SettingsError(
            f"a regression needs two values and two patients; column {column!r} gives {len(set(numbers.tolist()))} value(s) "
            f"of {patients} patient(s)"
        )


def _levels(encoder: Encoder, levels: Sequence[int] | None) -> list[int]:
    count = len(encoder.channels)
    if levels is None:
        return [*range(count), -1]
    for level in levels:
        if not -1 <= level < count:
            raise SettingsError(
                f"there is no level {level}: the encoder has 0 (finest) to {count - 1}, and -1 is all side by side"
            )
    return list(dict.fromkeys(levels))
