"""Inference as the RSNA 2025 challenge asks for it: one series at a time, no series without an
answer.

Whatever is wrong with a series, the answer is then the prior of the training data, with the reason
beside it.
"""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from wavespark.downstream.classify import Classify
from wavespark.downstream.heads import encoder_of
from wavespark.downstream.memory import MemoryVolume
from wavespark.downstream.saving import TaskModel, load_model
from wavespark.errors import InputError, SettingsError
from wavespark.prepare.item import make_item
from wavespark.prepare.recipe import reading_settings
from wavespark.rsna_labels import LABELS
from wavespark.sampling.lateral import Sides
from wavespark.volumes import ReadingSettings, Volume, read_volumes

__all__ = ["LABELS", "Prediction", "Predictor"]

DEFAULT_PRIOR = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The answer for one series."""

    probabilities: dict[str, float]
    """Probability of each label, in the order of `LABELS`, between 0 and 1."""
    reason: str | None
    """Reason code if this is the prior, else None."""
    notes: tuple[str, ...]
    """Reason codes of properties that are odd but usable."""
    seconds: float

    @property
    def row(self) -> list[float]:
        """The 14 probabilities in the order of `LABELS`."""
        return list(self.probabilities.values())


class Predictor:
    """A fine-tuned classifier for series folders.

    Args:
        model: a folder that `wavespark finetune classify` wrote, whose labels are those of the
            challenge.
        device: `auto`, `cpu` or `cuda`.
        mirrored: also predict the mirrored head, exchange left and right, and take the mean: twice
            the time.

    Example:
        predictor = Predictor("RUN")
        predictor("series/1.2.3").row          # 14 numbers, whatever the folder holds

    Raises:
        CheckpointError: if there is no model.
        SettingsError: if the model has other labels.
    """

    def __init__(self, model: str | Path, device: str = "auto", mirrored: bool = False) -> None:
        found = load_model(model, device)
        task = found.task
        if not isinstance(task, Classify) or set(LABELS) - set(task.names):
            raise SettingsError(
                f"{model} was not trained on the {len(LABELS)} labels of RSNA 2025: fine-tune with `wavespark finetune classify`"
            )
        self.found: TaskModel = found
        self.task: Classify = task
        self.mirrored = mirrored
        self.prior = {name: task.prior[task.names.index(name)] or DEFAULT_PRIOR for name in LABELS}

    def __call__(self, series: str | os.PathLike) -> Prediction:
        """The answer for a folder of DICOM files (or any volume that wavespark reads).

        Never raises an exception.
        """
        started = time.monotonic()
        try:
            volumes, notes = self._volumes(series)
            rows = np.mean([self._probabilities(v) for v in volumes], axis=0)
            if not np.isfinite(rows).all():
                return self._prior("not_finite", started)
        except InputError as error:
            return self._prior(error.reason, started)
        except MemoryError:
            return self._prior("too_large", started)
        except Exception as error:  # its text can quote the file, so only its kind is kept
            return self._prior(f"unexpected_{type(error).__name__}", started)
        named = dict(zip(self.task.names, rows.tolist(), strict=True))
        seconds = round(time.monotonic() - started, 3)
        return Prediction(
            probabilities={name: named[name] for name in LABELS}, reason=None, notes=notes, seconds=seconds
        )

    def _prior(self, reason: str, started: float) -> Prediction:
        seconds = round(time.monotonic() - started, 3)
        return Prediction(probabilities=dict(self.prior), reason=reason, notes=(), seconds=seconds)

    def _volumes(self, series: str | os.PathLike) -> tuple[list[Volume], tuple[str, ...]]:
        """Return the volume that the model can take; a series that the strict reader refuses is
        read again with gaps allowed.

        Raises:
            InputError: with the reason of the refusal.
        """
        if not os.fspath(series):
            raise InputError("no_input", "an empty path")  # which would be the current folder
        strict = reading_settings(self.found.recipe.reading)
        refused = InputError("no_input", "nothing to read")
        for settings, note in ((strict, ()), (_lenient(strict), ("read_with_gaps",))):
            found = read_volumes(series, settings=settings)
            stems = encoder_of(self.found.model).stem_channels
            usable = [v for v in found.volumes if v.modality in stems or "any" in stems]
            if usable:
                largest = max(v.voxels.size for v in usable)
                kept = [v for v in usable if v.voxels.size == largest]
                return kept, (*note, *sorted({n for v in kept for n in v.notes}))
            if found.refused:
                refused = InputError(found.refused[0].reason, found.refused[0].sentence)
            elif found.volumes:
                refused = InputError("other_modality", f"the model takes {' and '.join(stems)}")
        raise refused

    @torch.inference_mode()
    def _probabilities(self, volume: Volume) -> np.ndarray:
        item = make_item(volume, self.found.recipe)
        prepared = MemoryVolume.of(item, volume.modality, volume.contrast)
        straight = self.task.predict(self.found.model, prepared)
        if not self.mirrored:
            return straight
        other = self.task.predict(self.found.model, prepared.mirrored())
        return np.asarray((straight + other[Sides.columns(self.task.names)]) / 2)


def _lenient(settings: ReadingSettings) -> ReadingSettings:
    return replace(settings, allow_gaps=True)
