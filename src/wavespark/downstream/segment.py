"""Segmentation: a class for every voxel. Dice and cross-entropy, windows around what is labelled, sliding prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from wavespark.config.downstream import FinetuneSettings
from wavespark.downstream.heads import dense_head
from wavespark.downstream.items import LABELS, Labelled
from wavespark.downstream.losses import dice_and_cross_entropy
from wavespark.downstream.memory import Readable
from wavespark.downstream.sliding import sliding_window
from wavespark.errors import SettingsError
from wavespark.metrics.segmentation import dice, hausdorff, surface_dice
from wavespark.models import Encoder
from wavespark.sampling.scene import Scene


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """The task of segmenting `classes` classes, background included."""

    classes: int
    settings: FinetuneSettings
    kind: ClassVar[str] = "segment"
    main: ClassVar[str] = "dice"
    """The figure of the curve."""

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= 1024:
            raise SettingsError(f"a segmentation has 2 to 1024 classes with background, the labels have {self.classes}")

    @classmethod
    def of(cls, items: Sequence[Labelled], settings: FinetuneSettings) -> "Segment":
        """The task that the label maps pose: as many classes as their highest value and the background."""
        return cls(classes=1 + max((max(item.places, default=0) for item in items), default=0), settings=settings)

    def describe(self) -> dict[str, Any]:
        """Plain values that make it again."""
        return {"kind": self.kind, "classes": self.classes}

    def build(self, encoder: Encoder) -> nn.Module:
        """The network: `forward(crop, modality) -> logits`."""
        return dense_head(encoder, self.classes, self.settings.decoder)

    def loss(self, model: nn.Module, scenes: Sequence[Scene], items: Sequence[Labelled], modality: str) -> Tensor:
        """Of a batch of windows."""
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


def map_scores(
    found: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float], classes: Sequence[int]
) -> dict[str, float]:
    """`dice`, `hd95_mm`, `surface_dice` (1 mm): means over the classes that are in `found` or `truth`; `dice_K` of each class.

    A class that is only in one of both has no distance: it is left out of `hd95_mm` and counted in `one_side_empty`.
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
    """Logits [K, D, H, W] of a stored volume, float32 on the CPU; where no window with foreground lies, class 0 wins."""
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
