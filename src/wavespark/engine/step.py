"""One step, in the order of the paper: mask, encode what is visible, densify, decode what is hidden, score."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.masking import BlockMasking
from wavespark.masking.masks import Masks
from wavespark.models import SparK
from wavespark.objectives import CellTargets, Score, cell_targets, reconstruction
from wavespark.randomness import stream
from wavespark.sampling import Batch
from wavespark.shapes import Triple


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StepResult:
    """What a step computed."""

    score: Score
    masks: Masks
    predicted: Tensor
    """bool [B, D, H, W] on the cell grid: hidden cells with at least half foreground."""
    prediction: Tensor
    targets: CellTargets


def forward(
    model: SparK, batch: Batch, masking: BlockMasking, seed: int, step: int, variance_floor: float
) -> StepResult:
    """The reconstruction score of a batch. Its masks and stochastic depth depend on the seed, the step and the samples' keys only."""
    masks = masking.sample(draws=[(seed, step, key) for key in batch.mask_keys])
    masking.verify(masks)
    predicted = masks.hidden & target_cells(batch.foreground, model.encoder.cell).cpu()
    device = next(model.parameters()).device
    voxels, foreground = batch.voxels.to(device, non_blocking=True), batch.foreground.to(device, non_blocking=True)
    depth = stream(seed, purpose="stochastic depth", step=step, volume=batch.mask_keys[0])
    generator = torch.Generator().manual_seed(int(depth.integers(2**63)))
    prediction = model(voxels, masks.visible, predicted, batch.modality, generator)
    targets = cell_targets(voxels, foreground, predicted, model.encoder.cell, variance_floor)
    return StepResult(
        score=reconstruction(prediction, targets),
        masks=masks,
        predicted=predicted,
        prediction=prediction,
        targets=targets,
    )


def target_cells(foreground_BDHW: Tensor, cell: Triple) -> Tensor:
    """bool [B, D, H, W] on the cell grid: at least half of the cell's voxels (those in the crop) are foreground."""
    size = foreground_BDHW.shape[1:]
    beyond = [-s % c for s, c in zip(size, cell, strict=True)]
    pad = (0, beyond[2], 0, beyond[1], 0, beyond[0])
    inside = F.pad(torch.ones(1, 1, *size, device=foreground_BDHW.device), pad)
    share = F.avg_pool3d(F.pad(foreground_BDHW[:, None].float(), pad), cell) / F.avg_pool3d(inside, cell)
    return share[:, 0] >= 0.5
