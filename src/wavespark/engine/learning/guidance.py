"""Where the masks of a training step fall: guided by the head, by vessels or by what is hard, and around the second view."""

import torch
from torch import Tensor

from wavespark.config import PretrainSettings
from wavespark.engine.learning.step import Scoring, draw_masks, reconstruct
from wavespark.engine.learning.teacher import Teacher
from wavespark.errors import MaskError
from wavespark.masking import BlockMasking, foreground_weights, hardness_weights, vesselness_weights
from wavespark.masking.masks import Masks
from wavespark.objectives import cell_errors
from wavespark.sampling import Batch
from wavespark.sampling.views import CERTAIN, Views
from wavespark.shapes import Triple


def guide(
    batch: Batch, settings: PretrainSettings, masking: BlockMasking, cell: Triple, step: int, teacher: Teacher | None
) -> Tensor | None:
    """How likely each cell is to be hidden, [B, D, H, W] on the CPU; None = all alike."""
    strength = settings.mask.strength(step)
    if not strength:
        return None
    kind = settings.mask.guide
    if kind == "foreground":
        return foreground_weights(batch.foreground.cpu(), cell, strength=strength)
    if kind == "vessels":
        # Of CT the first window; vessels are bright in every kind of scan that shows them.
        return vesselness_weights(batch.voxels[:, 0].cpu(), cell, strength=strength)
    if teacher is None:
        raise MaskError("mask.guide='hard' needs the slow copy of the model, which this objective has not made")
    return hardness_weights(teacher_errors(teacher, batch, masking, settings, step), strength=strength)


@torch.no_grad()
def teacher_errors(
    teacher: Teacher, batch: Batch, masking: BlockMasking, settings: PretrainSettings, step: int
) -> Tensor:
    """How badly the slow copy reconstructs each cell that a mask of its own hides, [B, D, H, W] on the CPU; NaN for the others."""
    keys = [f"{key}:teacher" for key in batch.mask_keys]
    masks = draw_masks(masking, keys, settings.run.seed, step)
    scoring = Scoring(**settings.objective.scoring)
    result = reconstruct(teacher.model, batch, masks, settings.run.seed, step, scoring)
    return cell_errors(result.prediction, result.targets, result.predicted)


def masks_around(
    views: Views, masking: BlockMasking, seed: int, step: int, weights: Tensor | None, *, hide: bool
) -> Masks:
    """Masks of the coarse view that hide all of what the fine one shows (or, for keys, none of it).

    Raises:
        MaskError: if they do not, because there is no room.
    """
    keys = views.coarse.mask_keys if hide else tuple(f"{key}:key" for key in views.coarse.mask_keys)
    even = torch.ones(views.footprint.shape) if weights is None else weights
    forced = torch.where(views.footprint, CERTAIN if hide else 1 / CERTAIN, even)
    masks = draw_masks(masking, keys, seed, step, forced)
    if not (views.footprint <= (masks.hidden if hide else masks.visible)).all():
        raise MaskError(
            f"a second view of {views.tile} cells finds no room among the {'hidden' if hide else 'visible'} cells of grid {masking.grid}: "
            "use a smaller objective.second_view_cells"
        )
    return masks
