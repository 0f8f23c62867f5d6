"""Choice of a learning rate for one arm by cross-validation among its own labelled volumes; test
volumes are never read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wavespark.downstream.arms import PRETRAINED, peak_rate, starting_encoder
from wavespark.downstream.fitting import Task, fit
from wavespark.downstream.halves import halves
from wavespark.downstream.items import Labelled
from wavespark.errors import ExitCode, SettingsError, TrainingStopped
from wavespark.models import Encoder
from wavespark.progress import OnProgress, ShouldStop, ignore_progress, never_stop

FACTORS = (1 / 3, 1.0, 3.0)
"""Candidates as multiples of the arm's default learning rate."""

FOLDS = 2
"""Parts into which the labelled people are divided; each is the validation side once."""

_SCORE = {
    "segment": ("dice", 1.0),
    "classify": ("log_loss", -1.0),
    "regress": ("absolute_error", -1.0),
    "detect": ("margin", 1.0),
}
"""Task -> figure of a volume that is compared, and 1 where more is better."""

Fold = tuple[list[Labelled], list[Labelled]]
"""Volumes to train on, volumes to validate on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """Candidates of one arm, their scores, and the one that was selected."""

    rates: tuple[float, ...]
    scores: tuple[float | None, ...]
    """Mean score over the validation volumes of all folds, more is better; None where a training
    diverged."""
    selected: float
    validated_on: str
    """`people`, or `halves of one volume`."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "rates": list(self.rates),
            "scores": list(self.scores),
            "selected": self.selected,
            "validated_on": self.validated_on,
        }


def trainings_of_tuning(people: int) -> int:
    """Number of trainings that one choice takes."""
    return len(FACTORS) * (FOLDS if people > 1 else 1)


def tune(
    task: Task,
    arm: str,
    encoder: Encoder,
    items: Sequence[Labelled],
    seed: int,
    *,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Tuning:
    """Train every candidate on one side of each fold and score it on the other; the best mean score
    wins, ties go to the smaller rate.

    Args:
        task: what is learned.
        arm: `pre-trained`, `scratch` or `plain`.
        encoder: pre-trained; is not changed.
        items: labelled volumes of the training itself.
        seed: random seed of fresh weights and windows.
        on_progress: called after every step, in steps.
        should_stop: a name (of a signal) ends it.

    Raises:
        SettingsError: if a single volume is too small to be cut in two, or every candidate
            diverged.
        TrainingStopped: if `should_stop` asked for it.
    """
    parts, validated_on = folds(items)
    rates = tuple(peak_rate(task.kind, task.settings, starting_encoder(arm, encoder, seed)) * f for f in FACTORS)
    steps = task.settings.run.steps
    total = len(rates) * len(parts) * steps
    scores: list[float | None] = []
    for number, rate in enumerate(rates):
        volume_scores: list[float] = []
        for k, (train, validation) in enumerate(parts):
            base = (number * len(parts) + k) * steps

            def say(done: float, of: float, text: str, base: int = base, rate: float = rate) -> None:
                on_progress(base + done, total, f"learning rate {rate:.1e}: {text}")

            volume_scores += _scores(task, arm, encoder, train, validation, seed, rate, say, should_stop)
        scores.append(float(np.mean(volume_scores)) if volume_scores and np.isfinite(volume_scores).all() else None)
    ranked = [(score, -rate) for score, rate in zip(scores, rates, strict=True) if score is not None]
    if not ranked:
        raise SettingsError(
            f"--tune: no learning rate of {', '.join(f'{r:.1e}' for r in rates)} gave a finite score on {len(items)} "
            "labelled volume(s): leave --tune out, or label more volumes"
        )
    return Tuning(rates=rates, scores=tuple(scores), selected=-max(ranked)[1], validated_on=validated_on)


def folds(items: Sequence[Labelled]) -> tuple[list[Fold], str]:
    """Training and validation sides: by person, or the two halves of the volume of a single person.

    Returns:
        The folds, and `people` or `halves of one volume`.

    Raises:
        SettingsError: if a single volume is too small to be cut in two.
    """
    people = list(dict.fromkeys(item.volume.patient for item in items))
    if len(people) > 1:
        side = {person: k % FOLDS for k, person in enumerate(people)}
        return [
            (
                [i for i in items if side[i.volume.patient] != k],
                [i for i in items if side[i.volume.patient] == k],
            )
            for k in range(FOLDS)
        ], "people"
    cut = halves(items[0])
    if cut is None:
        raise SettingsError("--tune needs two labelled people, or one volume of at least 16 voxels along an axis")
    first, second = cut
    return [([first], [second])], "halves of one volume"


def _scores(
    task: Task,
    arm: str,
    encoder: Encoder,
    train: Sequence[Labelled],
    validation: Sequence[Labelled],
    seed: int,
    rate: float,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> list[float]:
    """Score of every validation volume; NaN for a training that diverged."""
    start = starting_encoder(arm, encoder, seed)
    try:
        model = fit(
            task,
            start,
            train,
            seed=seed,
            pretrained=arm == PRETRAINED,
            rate=rate,
            on_progress=on_progress,
            should_stop=should_stop,
        ).model
    except TrainingStopped as stopped:
        if stopped.exit_code != ExitCode.DIVERGED:
            raise
        return [float("nan")]
    name, sign = _SCORE[task.kind]
    scores = [task.scores(task.predict(model, item.volume), item).get(name, float("nan")) for item in validation]
    return [sign * score for score in scores if np.isfinite(score)]
