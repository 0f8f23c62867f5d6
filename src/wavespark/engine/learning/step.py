"""One step, in the order of the paper: mask, encode what is visible, densify, decode what is
hidden, score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.config.objective import ObjectiveSettings
from wavespark.masking.masks import Masks
from wavespark.models import SparK
from wavespark.objectives import CellTargets, Score, cell_targets, reconstruction
from wavespark.randomness import stream
from wavespark.sampling import Batch
from wavespark.shapes import Triple
from wavespark.sparse import VisibleCells


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """The encoder's input and the hidden voxels that count; see `ObjectiveSettings`."""

    variance_floor: float
    where: Literal["foreground", "everywhere"] = "foreground"
    dense: bool = False

    @classmethod
    def of(cls, settings: ObjectiveSettings) -> "Scoring":
        """Return the scoring of a run."""
        return cls(variance_floor=settings.variance_floor, where=settings.where, dense=settings.dense)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StepResult:
    """Results of a step."""

    score: Score
    masks: Masks
    predicted: Tensor
    """bool [B, D, H, W] on the cell grid: hidden cells with at least half foreground."""
    prediction: Tensor
    targets: CellTargets
    levels: list[VisibleCells]
    """Features of the encoder's levels, finest first; empty unless requested."""


def reconstruct(
    model: SparK, batch: Batch, masks: Masks, seed: int, step: int, scoring: Scoring, *, levels_too: bool = False
) -> StepResult:
    """The reconstruction score of a batch under given masks; `levels_too` keeps what the encoder
    gave."""
    device = next(model.parameters()).device
    voxels, foreground = batch.voxels.to(device, non_blocking=True), batch.foreground.to(device, non_blocking=True)
    predicted = masks.hidden
    if scoring.where == "everywhere":
        foreground = torch.ones_like(foreground)
    else:
        predicted = predicted & target_cells(batch.foreground, model.encoder.cell).cpu()
    depth = stream(seed, purpose="stochastic depth", step=step, volume=batch.mask_keys[0])
    generator = torch.Generator().manual_seed(int(depth.integers(2**63)))
    seen, visible = voxels, masks.visible
    if scoring.dense:
        seen = voxels.where(
            voxel_mask(masks.visible.to(device, non_blocking=True), model.encoder.cell, voxels.shape[2:])[:, None], 0
        )
        visible = masks.valid
    levels: list[VisibleCells] = []
    if levels_too:
        prediction, levels = model(seen, visible, predicted, batch.modality, generator, levels_too=True)
    else:
        prediction = model(seen, visible, predicted, batch.modality, generator)
    targets = cell_targets(voxels, foreground, predicted, model.encoder.cell, scoring.variance_floor)
    return StepResult(
        score=reconstruction(prediction, targets),
        masks=masks,
        predicted=predicted,
        prediction=prediction,
        targets=targets,
        levels=levels,
    )


def target_cells(foreground_BDHW: Tensor, cell: Triple) -> Tensor:
    """bool [B, D, H, W] on the cell grid: at least half of the cell's voxels (those in the crop)
    are foreground."""
    size = foreground_BDHW.shape[1:]
    beyond = [-s % c for s, c in zip(size, cell, strict=True)]
    pad = (0, beyond[2], 0, beyond[1], 0, beyond[0])
    inside = F.pad(torch.ones(1, 1, *size, device=foreground_BDHW.device), pad)
    share = F.avg_pool3d(F.pad(foreground_BDHW[:, None].float(), pad), cell) / F.avg_pool3d(inside, cell)
    return share[:, 0] >= 0.5


def voxel_mask(cells_BDHW: Tensor, cell: Triple, size: Sequence[int]) -> Tensor:
    """A cell mask as a voxel mask of the crop."""
    for axis in range(3):
        cells_BDHW = cells_BDHW.repeat_interleave(cell[axis], axis + 1)
    d, h, w = size
    return cells_BDHW[:, :d, :h, :w]
