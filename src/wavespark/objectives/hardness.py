"""Reconstruction error of each cell, which tells hard cells (AnatoMask: Li et al., ECCV 2024), on
normalised targets."""

import torch
from torch import Tensor

from wavespark.objectives.reconstruction import CellTargets, single_at_least


@torch.no_grad()
def cell_errors(prediction_McccC: Tensor, targets: CellTargets, predicted_BDHW: Tensor) -> Tensor:
    """[B, D, H, W] on the cell grid: mean squared error of each predicted cell; NaN where nothing
    was scored.

    In the units of the normalised targets, so that neither brightness nor contrast of a cell makes
    it hard (law I23; the published code ranks raw intensities).

    Args:
        prediction_McccC: in the order of `predicted_BDHW.nonzero()`.
        targets: of the same cells.
        predicted_BDHW: bool, on the CPU.
    """
    error = ((single_at_least(prediction_McccC) - targets.values) ** 2 * targets.weight).sum((1, 2, 3, 4))
    voxels = targets.weight.sum((1, 2, 3, 4))
    mean = torch.where(voxels > 0, error / voxels.clamp(min=1), torch.nan)
    errors = torch.full(predicted_BDHW.shape, torch.nan, dtype=mean.dtype)
    errors[predicted_BDHW] = mean.cpu()
    return errors
