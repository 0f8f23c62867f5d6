"""Reconstruction of hidden cells, and the normalised loss that says what it is worth.

Targets are voxels of the input, normalised per cell and channel over its foreground, as He et al.,
"Masked autoencoders are scalable vision learners" (2022) and SparK do; cells that vary less than a
floor (air, a clipped window) are left out, because their normalised noise cannot be predicted.
Axes: B batch, C channels, D H W voxels, M scored cells, c voxels along an edge of a cell.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wavespark.shapes import Triple
from wavespark.sparse import cut_cells


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CellTargets:
    """The voxels to predict and how to go back from normalised values to voxel values."""

    values: Tensor
    """[M, c, c, c, C], normalised, detached."""
    weight: Tensor
    """[M, c, c, c, C]: 1 where a voxel is scored, else 0."""
    mean: Tensor
    """[M, 1, 1, 1, C]."""
    scale: Tensor
    """[M, 1, 1, 1, C]: standard deviation."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Score:
    """Sums over the scored voxels: scores of several batches add up."""

    error: Tensor
    """sum (p - t)^2."""
    total: Tensor
    """sum t."""
    square: Tensor
    """sum t^2."""
    voxels: Tensor

    @property
    def loss(self) -> Tensor:
        """Mean squared error over the scored voxels; zero where there is none."""
        return self.error / self.voxels.clamp(min=1)

    @property
    def normalised_loss(self) -> Tensor:
        """sum (p - t)^2 / sum (t - mean t)^2: 1 = predicting the mean.

        Not a number where nothing was scored.
        """
        return self.error / (self.square - self.total**2 / self.voxels.clamp(min=1))

    def __add__(self, other: "Score") -> "Score":
        return Score(
            error=self.error + other.error,
            total=self.total + other.total,
            square=self.square + other.square,
            voxels=self.voxels + other.voxels,
        )


@torch.no_grad()
def cell_targets(
    crop_BCDHW: Tensor, foreground_BDHW: Tensor, chosen_BDHW: Tensor, cell: Triple, variance_floor: float
) -> CellTargets:
    """The normalised voxels of the chosen cells.

    Args:
        crop_BCDHW: prepared voxels.
        foreground_BDHW: bool a voxel; only foreground counts in the statistics and the score.
        chosen_BDHW: bool a cell.
        cell: voxels of a cell.
        variance_floor: a cell's channel with less variance is not scored; in squared units of the
            crop.
    """
    voxels = single_at_least(cut_cells(crop_BCDHW, chosen_BDHW, cell))
    weight = cut_cells(foreground_BDHW[:, None].to(voxels.dtype), chosen_BDHW, cell)
    count = weight.sum((1, 2, 3), keepdim=True).clamp(min=1)
    mean = (voxels * weight).sum((1, 2, 3), keepdim=True) / count
    variance = ((voxels - mean) ** 2 * weight).sum((1, 2, 3), keepdim=True) / count
    scale = (variance + 1e-6).sqrt()
    return CellTargets(
        values=(voxels - mean) / scale, weight=weight * (variance > variance_floor), mean=mean, scale=scale
    )


def reconstruction(prediction_McccC: Tensor, targets: CellTargets) -> Score:
    """The score of a prediction in normalised units; differentiable in the prediction only."""
    p, t, w = single_at_least(prediction_McccC), targets.values, targets.weight
    return Score(error=((p - t) ** 2 * w).sum(), total=(t * w).sum(), square=(t**2 * w).sum(), voxels=w.sum())


def single_at_least(values: Tensor) -> Tensor:
    """In fp32, or in what they have if that is more."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
