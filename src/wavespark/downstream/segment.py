"""Segmentation: a class for every voxel.

Dice and cross-entropy, windows around labelled voxels, sliding prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from wavespark.config.downstream import FinetuneSettings
from wavespark.downstream.heads import dense_head, set_class_prior
from wavespark.downstream.items import LABELS, Labelled
from wavespark.downstream.losses import dice_and_cross_entropy
from wavespark.downstream.memory import Readable
from wavespark.downstream.sliding import sliding_window
from wavespark.errors import SettingsError
from wavespark.metrics.segmentation import dice, hausdorff, surface_dice
from wavespark.models import Encoder
from wavespark.sampling.scene import Scene

_MOST_COUNTED = 16
"""Volumes whose label maps are read for the class frequencies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """The task of segmenting `classes` classes, background included."""

    classes: int
    settings: FinetuneSettings
    names: tuple[str, ...] = ()
    """Names of classes 1, 2, ...; none if they have no names."""
    kind: ClassVar[str] = "segment"
    main: ClassVar[str] = "dice"
    """The figure of the curve."""

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= 1024:
            raise SettingsError(f"a segmentation has 2 to 1024 classes with background, the labels have {self.classes}")
        if self.names and len(self.names) != self.classes - 1:
            raise SettingsError(f"{len(self.names)} class name(s) for {self.classes - 1} class(es) besides background")

    @classmethod
    def of(cls, items: Sequence[Labelled], settings: FinetuneSettings, names: Mapping[int, str] | None = None) -> Self:
        """The task for some label maps: background and as many classes as their highest value.

        Args:
            items: labelled volumes.
            settings: of the training.
            names: label value -> name; values without a name are called by their number.

        Raises:
            SettingsError: if there is no label, or a name for a value beyond the highest.
        """
        highest = max((max(item.places, default=0) for item in items), default=0)
        beyond = sorted(value for value in names or {} if not 1 <= value <= highest)
        if beyond:
            raise SettingsError(f"class {beyond[0]} has a name, but the label maps hold the values 1 to {highest} only")
        called = tuple((names or {}).get(k, str(k)) for k in range(1, highest + 1)) if names else ()
        return cls(classes=1 + highest, settings=settings, names=called)

    def describe(self) -> dict[str, Any]:
        """Plain values from which the task can be rebuilt."""
        named = {"names": list(self.names)} if self.names else {}
        return {"kind": self.kind, "classes": self.classes, **named}

    def build(self, encoder: Encoder) -> nn.Module:
        """The network: `forward(crop, modality) -> logits`."""
        return dense_head(encoder, self.classes, self.settings.decoder)

    def start(self, model: nn.Module, items: Sequence[Labelled]) -> None:
        """With `class_prior`, let the network begin at the class frequencies of the first few
        volumes."""
        if self.settings.class_prior:
            set_class_prior(model, class_frequencies(items[:_MOST_COUNTED], self.classes))

    def loss(self, model: nn.Module, scenes: Sequence[Scene], items: Sequence[Labelled], modality: str) -> Tensor:
        """Dice and cross-entropy of a batch of windows."""
        device = next(model.parameters()).device
        voxels = torch.from_numpy(np.stack([s.voxels for s in scenes])).to(device)
        labels = torch.from_numpy(np.stack([s.maps[LABELS] for s in scenes]).astype(np.int64)).to(device)
        return dice_and_cross_entropy(model(voxels, modality=modality), labels.clamp(max=self.classes - 1))

    def predict(self, model: nn.Module, volume: Readable) -> np.ndarray:
        """The likeliest class of each voxel of the stored grid, uint8 or uint16 [D, H, W]."""
        logits = dense_logits(model, volume, self.settings)
        return logits.argmax(0).cpu().numpy().astype(np.uint8 if self.classes <= 256 else np.uint16)

    def scores(self, found: np.ndarray, item: Labelled) -> dict[str, float]:
        """Mean figures over the classes, and the Dice of each class."""
        truth = item.read_map()
        return map_scores(found, truth, item.volume.spacing, range(1, self.classes))


def class_frequencies(items: Sequence[Labelled], classes: int) -> list[float]:
    """Share of each class in the foreground boxes of labelled volumes; every class counts as one
    voxel at least."""
    counts = np.ones(classes)
    for item in items:
        counts += np.bincount(item.read_map().ravel(), minlength=classes)[:classes]
    return list(counts / counts.sum())


def map_scores(
    found: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float], classes: Sequence[int]
) -> dict[str, float]:
    """Compute `dice`, `hd95_mm`, `surface_dice` (1 mm): means over the classes that are in `found`
    or `truth`; `dice_K` of each class.

    A class that is only in one of both has no distance: it is left out of `hd95_mm` and counted in
    `one_side_empty`.
    """
    each = {k: dice(found == k, truth == k) for k in classes}
    there = [k for k in classes if np.isfinite(each[k])]
    distances = [hausdorff(found == k, truth == k, spacing) for k in there]
    shares = [surface_dice(found == k, truth == k, spacing) for k in there]
    finite = [d for d in distances if np.isfinite(d)]
    return {
        "dice": float(np.mean([each[k] for k in there])) if there else float("nan"),
        "hd95_mm": float(np.mean(finite)) if finite else float("nan"),
        "surface_dice": float(np.mean(shares)) if shares else float("nan"),
        "one_side_empty": float(len(distances) - len(finite)),
        **{f"dice_{k}": each[k] for k in classes},
    }


@torch.inference_mode()
def dense_logits(model: nn.Module, volume: Readable, settings: FinetuneSettings) -> Tensor:
    """Logits [K, D, H, W] of a stored volume, float32 on the CPU; where no window with foreground
    lies, class 0 wins."""
    device = next(model.parameters()).device
    model.eval()
    return sliding_window(
        torch.from_numpy(volume.read()),
        settings.data.crop,
        lambda crops: model(crops.to(device), modality=volume.modality).float().cpu(),
        overlap=settings.run.overlap,
        batch=settings.data.batch,
        needed_DHW=volume.read_foreground(),
    )
