"""Arms and rows of the benchmark on people: frozen features and their controls, each part computed
once and kept as a file.

Legend: R repeats, N volumes, K classes, S pre-trainings.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from wavespark.downstream.features import DEFAULT_POOLS, TILE, store_features
from wavespark.downstream.heads import untrained
from wavespark.downstream.items import Labelled
from wavespark.downstream.labels import read_labels
from wavespark.downstream.probing import (
    CONSTANT,
    CONTROL_SEEDS,
    FOLDS,
    INTENSITIES,
    OURS,
    SCRATCH,
    VOLUME,
    control_features,
)
from wavespark.downstream.voxel_probe import Describe, encoder_maps, fit_voxel_probe, intensity_maps
from wavespark.files import read_secret, write_file
from wavespark.metrics.folds import patient_folds
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
from wavespark.progress import OnProgress
from wavespark.randomness import stream
from wavespark.volumes import source_id

FROZEN, TUNED = "frozen", "fine-tuned"
PLAIN = "plain"
IMAGES = {"_T1w": "T1", "_T1": "T1", "_T2w": "T2", "_T2": "T2", "_FLAIR": "FLAIR"}
"""End of a file's name -> contrast; other files (T1 after contrast) take no part in that
question."""
_DRAWS = 1000
_LABELLED_DRAWS = 3
"""Draws of the labelled people of the frozen tissue task."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Arms:
    """Encoders of the benchmark, and the folder of finished parts."""

    encoders: Sequence[Encoder]
    """One a pre-training."""
    seed: int
    parts: Path

    def networks(self) -> dict[tuple[str, int], Callable[[], Encoder]]:
        """(arm, number) -> function that makes the network: each pre-training, and random
        weights."""
        made: dict[tuple[str, int], Callable[[], Encoder]] = {}
        for k, encoder in enumerate(self.encoders):
            made[OURS, k] = partial(_same, encoder)
        for k in range(CONTROL_SEEDS):
            made[SCRATCH, k] = partial(_untrained, self.encoders[0], self.seed + k)
        return made

    def part(self, name: str, compute: Callable[[], Any]) -> Any:
        """The plain values of a part: read if they are there, else computed and kept."""
        path = self.parts / f"{name}.json"
        if not path.is_file():
            value = compute()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, json.dumps(value, allow_nan=False).encode())
        return json.loads(path.read_bytes())


def _same(encoder: Encoder) -> Encoder:
    return encoder


def _untrained(encoder: Encoder, seed: int) -> Encoder:
    return untrained(encoder, seed).eval()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """A question about whole volumes."""

    name: str
    volumes: tuple[StoredVolume, ...]
    people: tuple[str, ...]
    targets: np.ndarray
    """int64 class numbers, or float64."""
    classes: tuple[str, ...] = ()
    """Empty for numbers."""

    def predict(self, features: np.ndarray, probe: str, repeats: int, seed: int) -> np.ndarray:
        """Out-of-fold predictions [R, N] or [R, N, K] of a `linear` or `constant` probe."""
        numeric = not self.classes
        fits = regressors(len(features)) if numeric else classifiers(len(features), len(self.classes))
        name = {("linear", True): "ridge", ("linear", False): "logistic", ("constant", True): "mean"}.get(
            (probe, numeric), "majority"
        )
        return out_of_fold(features, self.targets, self.people, self.folds(repeats, seed), fits[name])

    def folds(self, repeats: int, seed: int) -> np.ndarray:
        """Folds [R, N]."""
        return patient_folds(
            self.people, self.targets, numeric=not self.classes, folds=FOLDS, repeats=repeats, seed=seed
        )

    def figures(self, predictions: np.ndarray, repeats: int, seed: int) -> dict[str, Figure]:
        """Figures of predictions, the main one first."""
        if not self.classes:
            return number_figures(predictions, self.targets)
        both = class_figures(predictions, self.targets, self.folds(repeats, seed))
        return {"auc": both["auc"], "balanced_accuracy": both["balanced_accuracy"]}


def volume_tasks(people: Path, stores: Mapping[str, Store]) -> list[Task]:
    """Sex, age and group of ds002748, and the contrast of ds000011 and ms."""
    store = stores["ds002748"]
    table = read_labels(people / "ds002748" / "participants.csv", store)
    tasks = []
    for name in ("sex", "age", "group"):
        if name not in table.columns:
            continue
        words = {v: rows[0].values[name] for v, rows in table.by_volume().items() if rows[0].values[name]}
        volumes = tuple(store[v] for v in words)
        owners = tuple(v.patient for v in volumes)
        if name == "age":
            tasks.append(
                Task(name=name, volumes=volumes, people=owners, targets=np.array([float(w) for w in words.values()]))
            )
        else:
            tasks.append(_classes(name, volumes, owners, list(words.values())))
    found = [item for name in ("ds000011", "ms") if name in stores for item in _contrasts(stores[name], people / name)]
    if len({contrast for _, _, contrast in found}) > 1:
        scans, persons, contrasts = zip(*found, strict=True)
        tasks.append(_classes("contrast", scans, persons, contrasts))
    return tasks


def _classes(name: str, volumes: Sequence[StoredVolume], people: Sequence[str], words: Sequence[str]) -> Task:
    classes = tuple(sorted(set(words)))
    targets = np.array([classes.index(word) for word in words])
    return Task(name=name, volumes=tuple(volumes), people=tuple(people), targets=targets, classes=classes)


def _contrasts(store: Store, folder: Path) -> list[tuple[StoredVolume, str, str]]:
    """Volume, person (the name before the first underscore) and contrast of each file."""
    secret, ids = read_secret(store.path), {volume.id for volume in store}
    found = []
    for path in sorted(folder.glob("*.nii.gz")):
        stem = path.name.removesuffix(".nii.gz")
        contrast = next((c for end, c in IMAGES.items() if stem.endswith(end)), None)
        name = source_id(secret, path.name)
        if contrast is not None and name in ids:
            found.append((store[name], f"{folder.name} {stem.split('_')[0]}", contrast))
    return found


def summarise(
    arms: Arms, people: Path, stores: Mapping[str, Store], repeats: int, seed: int, on_progress: OnProgress
) -> list[dict[str, Any]]:
    """Rows of the questions about whole volumes, from frozen features."""
    rows = []
    for task in volume_tasks(people, stores):
        figures = {
            key: task.figures(np.array(p), repeats, seed)
            for key, p in _predictions(arms, task, repeats, seed, on_progress).items()
        }
        weights = patient_weights(task.people, draws=_DRAWS, seed=seed)
        rows.append(make_row(task.name, FROZEN, None, figures, weights, len(set(task.people))))
    return rows


def _predictions(
    arms: Arms, task: Task, repeats: int, seed: int, on_progress: OnProgress
) -> dict[tuple[str, int], Any]:
    predictions = {}
    for (arm, k), network in arms.networks().items():

        def compute(network: Callable[[], Encoder] = network, arm: str = arm, k: int = k) -> Any:
            def say(done: float, total: float, message: str) -> None:
                on_progress(done, total, f"{task.name}, {arm}: {message}")

            name = f"features-{_digest(task.volumes)}-{arm}-{k}"
            features = np.array(arms.part(name, lambda: _features(network(), task.volumes, say)))
            return task.predict(features, "linear", repeats, seed).tolist()

        predictions[arm, k] = arms.part(f"{task.name}-{arm}-{k}", compute)
    for arm in (INTENSITIES, VOLUME, CONSTANT):

        def control(arm: str = arm) -> Any:
            on_progress(0, 1, f"{task.name}, {arm}")
            probe = "constant" if arm == CONSTANT else "linear"
            return task.predict(control_features(task.volumes)[arm], probe, repeats, seed).tolist()

        predictions[arm, 0] = arms.part(f"{task.name}-{arm}", control)
    return predictions


def _features(encoder: Encoder, volumes: Sequence[StoredVolume], on_progress: OnProgress) -> list[list[float]]:
    """All levels side by side, a row a volume."""
    return np.concatenate(store_features(encoder, volumes, TILE, on_progress, DEFAULT_POOLS), 1).tolist()


def _digest(volumes: Sequence[StoredVolume]) -> str:
    """Name of a set of volumes: questions about the same people share their features."""
    return hashlib.sha256(" ".join(v.content for v in volumes).encode()).hexdigest()[:12]


def make_row(
    task: str,
    mode: str,
    labels: int | None,
    figures: Mapping[tuple[str, int], Mapping[str, Figure]],
    weights: np.ndarray,
    people: int,
) -> dict[str, Any]:
    """A row of the results: every arm and every gain of the pre-trained one, with intervals over
    people.

    Args:
        task: name.
        mode: `frozen` or `fine-tuned`.
        labels: labelled people; None where all of a cross-validation are.
        figures: (arm, pre-training or seed) -> figures; the numbers of an arm are averaged.
        weights: of `patient_weights`.
        people: how many are tested on.
    """
    numbers = sorted({k for arm, k in figures if arm == OURS})
    arms = list(dict.fromkeys(arm for arm, _ in figures))
    names = list(figures[OURS, numbers[0]])
    averaged = {
        arm: {n: mean_figure([f[n] for (a, _), f in figures.items() if a == arm]) for n in names} for arm in arms
    }
    row: dict[str, Any] = {
        "task": task,
        "mode": mode,
        "labels": labels,
        "figure": names[0],
        "people": people,
        "arms": {
            arm: {n: interval_of(f, weights, people).to_json() for n, f in each.items()}
            for arm, each in averaged.items()
        },
        "gains": {
            arm: {n: interval_of(gain_figure(n, averaged[OURS][n], each[n]), weights, people).to_json() for n in names}
            for arm, each in averaged.items()
            if arm != OURS
        },
    }
    if len(numbers) > 1:
        row["over_pretrainings"] = {
            arm: _over_pretrainings(
                [gain_figure(names[0], figures[OURS, k][names[0]], each[names[0]]) for k in numbers], weights
            )
            for arm, each in averaged.items()
            if arm != OURS
        }
    return row


def _over_pretrainings(gains: Sequence[Figure], weights: np.ndarray) -> dict[str, Any]:
    """Mean gain with its 95 % interval over pre-trainings (Student's t), all people counted
    once."""
    values = np.array([float(gain(weights[:1])[0]) for gain in gains])
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    mean = float(values.mean())
    return {"value": mean, "low": mean - half, "high": mean + half, "pretrainings": len(values)}


def frozen_tissue(
    arms: Arms,
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    labels: Sequence[int],
    seed: int,
    on_progress: OnProgress,
) -> list[dict[str, Any]]:
    """Rows of the tissue task from frozen features, one for each number of labelled people."""
    classes = 1 + max(int(item.read_map().max()) for item in [*train, *test])
    scores: dict[tuple[str, int], Any] = {}
    for (arm, k), network in [*arms.networks().items(), ((INTENSITIES, 0), None)]:

        def compute(network: Callable[[], Encoder] | None = network, arm: str = arm) -> Any:
            describe = _kept(intensity_maps if network is None else _encoded(network()))
            return [_tissue(describe, train, test, n, classes, seed, arm, on_progress) for n in labels]

        scores[arm, k] = arms.part(f"tissue-{arm}-{k}", compute)
    people = [item.volume.patient for item in test]
    weights = patient_weights(people, draws=_DRAWS, seed=seed)
    rows = []
    for place, n in enumerate(labels):
        figures = {key: {"dice": score_figure(each[place])} for key, each in scores.items()}
        rows.append(make_row("tissue", FROZEN, n, figures, weights, len(set(people))))
    return rows


def _encoded(encoder: Encoder) -> Describe:
    return lambda volume: encoder_maps(encoder, volume)


def _kept(describe: Describe) -> Describe:
    """The description, computed once a volume."""
    known: dict[str, Any] = {}

    def get(volume: StoredVolume) -> Any:
        if volume.id not in known:
            known[volume.id] = describe(volume)
        return known[volume.id]

    return get


def _tissue(
    describe: Describe,
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    n: int,
    classes: int,
    seed: int,
    arm: str,
    on_progress: OnProgress,
) -> list[float]:
    """Mean Dice of each test person, averaged over draws of the labelled people."""
    total = np.zeros(len(test))
    for draw in range(_LABELLED_DRAWS):
        on_progress(draw, _LABELLED_DRAWS, f"{arm}, {n} labelled, draw {draw + 1} of {_LABELLED_DRAWS}")
        order = stream(seed * 1000 + draw, purpose="which are labelled").permutation(len(train))
        probe = fit_voxel_probe([train[k] for k in order[:n]], describe, classes, seed=seed)
        total += [
            mean_dice(probe.predict(describe(i.volume), i.volume.read_foreground()), i.read_map(), classes)
            for i in test
        ]
    return (total / _LABELLED_DRAWS).tolist()


def mean_dice(predicted: np.ndarray, truth: np.ndarray, classes: int) -> float:
    """Mean Dice over the classes from 1 that occur in either; NaN where none does."""
    each = []
    for k in range(1, classes):
        p, t = predicted == k, truth == k
        if p.any() or t.any():
            each.append(2 * float((p & t).sum()) / float(p.sum() + t.sum()))
    return float(np.mean(each)) if each else math.nan


def score_figure(scores: Sequence[float]) -> Figure:
    """The mean of one score a person."""
    values = np.array(scores, np.float64)
    return lambda weights: weights @ values / weights.sum(1)


def tuned_rows(runs: Sequence[Path], labels: Sequence[int], seeds: int, seed: int) -> list[dict[str, Any]]:
    """Rows of the tissue task from the trainings of fine-tuning studies, averaged over their seeds.

    Args:
        runs: folder of each pre-training's study; the first one also holds the arms `scratch` and
            `plain`.
        labels: numbers of labelled people.
        seeds: trainings of each.
        seed: random seed of the intervals.
    """
    rows = []
    for n in labels:
        figures: dict[tuple[str, int], dict[str, Figure]] = {}
        people: list[str] = []
        for number, run in enumerate(runs):
            for arm in (OURS, SCRATCH, PLAIN) if number == 0 else (OURS,):
                records = [
                    json.loads((run / "parts" / f"{arm}-{n}-{k}.json").read_bytes())["rows"] for k in range(seeds)
                ]
                people = [row["patient"] for row in records[0]]
                scores = np.mean([[row["scores"]["dice"] for row in rows_] for rows_ in records], axis=0)
                figures[arm, number] = {"dice": score_figure(scores.tolist())}
        weights = patient_weights(people, draws=_DRAWS, seed=seed)
        rows.append(make_row("tissue", TUNED, n, figures, weights, len(set(people))))
    return rows
