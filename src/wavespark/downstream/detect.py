"""Detection of points: a heat map whose peaks are the finds; FROC and the sensitivity at 0.5 false
positives a scan."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from wavespark.config.downstream import FinetuneSettings
from wavespark.downstream.heads import dense_head
from wavespark.downstream.items import Labelled
from wavespark.downstream.losses import focal_heat
from wavespark.downstream.memory import Readable
from wavespark.downstream.segment import dense_logits
from wavespark.metrics.detection import Hits, Scan, match
from wavespark.models import Encoder
from wavespark.sampling.scene import Scene
from wavespark.shapes import Triple

RARE = -4.6
"""Logit of the first prediction, a heat of 0.01: nearly all voxels are background (Lin et al.,
"Focal loss", ICCV 2017)."""

_MOST_FINDS = 50


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Finds:
    """Points that a detector predicts in a volume, highest score first. M points."""

    index_M3: np.ndarray
    """float32 [M, 3], voxel index on the stored grid."""
    scores_M: np.ndarray
    """float64 [M], from 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Detect:
    """The task of finding points."""

    settings: FinetuneSettings
    sigma_mm: float = 2.0
    """Width of a point's heat."""
    apart_mm: float = 6.0
    """Smallest distance of two predicted points."""
    kind: ClassVar[str] = "detect"
    main: ClassVar[str] = "sensitivity"
    """Main figure of a comparison: sensitivity at 0.5 false positives a scan."""

    def describe(self) -> dict[str, Any]:
        """Plain values from which the task can be rebuilt."""
        return {"kind": self.kind, "sigma_mm": self.sigma_mm, "apart_mm": self.apart_mm}

    def build(self, encoder: Encoder) -> nn.Module:
        """The network: `forward(crop, modality) -> logits [B, 1, D, H, W]`."""
        return ShiftedLogits(dense_head(encoder, 1, self.settings.decoder))

    def start(self, model: nn.Module, items: Sequence[Labelled]) -> None:
        """Nothing: the network begins at the prior of the task."""

    def loss(self, model: nn.Module, scenes: Sequence[Scene], items: Sequence[Labelled], modality: str) -> Tensor:
        """Focal loss of a batch of windows."""
        device = next(model.parameters()).device
        voxels = torch.from_numpy(np.stack([s.voxels for s in scenes])).to(device)
        heat = np.stack(
            [heat_map(s.points, s.size, i.volume.spacing, self.sigma_mm) for s, i in zip(scenes, items, strict=True)]
        )
        return focal_heat(model(voxels, modality=modality)[:, 0], torch.from_numpy(heat).to(device))

    def predict(self, model: nn.Module, volume: Readable) -> Finds:
        """The peaks of the heat map."""
        heat = dense_logits(model, volume, self.settings)[0].sigmoid().numpy()
        heat = np.where(volume.read_foreground(), heat, 0)
        return peaks(heat, volume.spacing, self.apart_mm)

    def hits(self, found: Finds, item: Labelled) -> Hits:
        """Match predicted points to lesions: the score at each lesion, and the scores of false
        positives."""
        return match(finds_and_lesions(found, item))

    def scores(self, found: Finds, item: Labelled) -> dict[str, float]:
        """Figures of one volume: the best score at a lesion (mean over lesions; NaN without one),
        the best score elsewhere, and their margin.

        Without a lesion the margin is minus the best score elsewhere.
        """
        hits = self.hits(found, item)
        at = np.where(np.isfinite(hits.lesion_scores), hits.lesion_scores, 0)
        elsewhere = float(hits.false_scores.max(initial=0))
        return {
            "score_at_lesions": float(at.mean()) if len(at) else float("nan"),
            "score_elsewhere": elsewhere,
            "margin": (float(at.mean()) if len(at) else 0.0) - elsewhere,
        }


class ShiftedLogits(nn.Module):
    """A dense network whose logits begin at a heat of 0.01."""

    def __init__(self, dense: nn.Module) -> None:
        super().__init__()
        self.dense = dense

    @property
    def encoder(self) -> nn.Module:
        """The encoder of the network."""
        return self.dense.encoder  # type: ignore[return-value]

    def forward(self, crop_BCDHW: Tensor, modality: str | None = None) -> Tensor:
        """Logits [B, 1, D, H, W]."""
        result: Tensor = self.dense(crop_BCDHW, modality=modality) + RARE
        return result


def heat_map(points_N3: np.ndarray, size: Triple, spacing: tuple[float, float, float], sigma_mm: float) -> np.ndarray:
    """Draw a Gaussian around each point inside the box, float32 [D, H, W], 1 at the nearest
    voxel."""
    heat = np.zeros(size, np.float32)
    for point in np.rint(points_N3).astype(int):
        if (point < 0).any() or (point >= size).any():
            continue
        bells = [
            np.exp(-(((np.arange(n) - p) * s) ** 2) / (2 * sigma_mm**2))
            for n, p, s in zip(size, point, spacing, strict=True)
        ]
        np.maximum(heat, np.einsum("i,j,k->ijk", *bells).astype(np.float32), out=heat)
    return heat


def peaks(heat_DHW: np.ndarray, spacing: tuple[float, float, float], apart_mm: float, most: int = _MOST_FINDS) -> Finds:
    """Local maxima that are at least `apart_mm` from any higher one, at most `most`, highest
    first."""
    highest = ndimage.maximum_filter(heat_DHW, size=3, mode="constant")
    where = np.argwhere((heat_DHW == highest) & (heat_DHW > 1e-3))
    values = heat_DHW[tuple(where.T)]
    kept: list[int] = []
    for k in np.argsort(-values, kind="stable")[: 40 * most]:
        if len(kept) == most:
            break
        gaps = [np.linalg.norm((where[k] - where[j]) * spacing) for j in kept]
        if not gaps or min(gaps) >= apart_mm:
            kept.append(int(k))
    return Finds(index_M3=where[kept].astype(np.float32).reshape(-1, 3), scores_M=values[kept].astype(np.float64))


def finds_and_lesions(found: Finds, item: Labelled) -> Scan:
    """Predicted points and lesions in mm of the stored grid."""
    spacing = np.array(item.volume.spacing)
    return Scan(
        found_M3=found.index_M3 * spacing,
        scores_M=found.scores_M,
        lesions_T3=item.points * spacing,
        reach_T=item.reach_mm,
    )
