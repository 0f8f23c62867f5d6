"""Weights of cells for guided masks: by the head, by vessels, or by what is hard to reconstruct."""

import torch
from torch import Tensor

from wavespark.engine.learning.step import Scoring, reconstruct
from wavespark.engine.learning.teacher import Teacher
from wavespark.errors import MaskError
from wavespark.masking import MaskPlan, foreground_weights, hardness_weights, vesselness_weights
from wavespark.objectives import cell_errors
from wavespark.sampling import Batch
from wavespark.shapes import Triple


def guide_weights(
    batch: Batch, plan: MaskPlan, scoring: Scoring, cell: Triple, step: int, teacher: Teacher | None
) -> Tensor | None:
    """Return how likely each cell is to be hidden, [B, D, H, W] on the CPU; None = all alike.

    Raises:
        MaskError: if the guide is `hard` and there is no teacher.
    """
    strength = plan.schedule.strength_at(step)
    if not strength:
        return None
    if plan.schedule.guide == "foreground":
        return foreground_weights(batch.foreground.cpu(), cell, strength=strength)
    if plan.schedule.guide == "vessels":
        # The first window of CT; vessels are bright in every kind of scan that shows them.
        return vesselness_weights(batch.voxels[:, 0].cpu(), cell, strength=strength)
    if teacher is None:
        raise MaskError("mask.guide='hard' needs the EMA teacher, which this objective does not have")
    return hardness_weights(teacher_errors(teacher, batch, plan, scoring, step), strength=strength)


@torch.no_grad()
def teacher_errors(teacher: Teacher, batch: Batch, plan: MaskPlan, scoring: Scoring, step: int) -> Tensor:
    """Return the EMA teacher's error of each cell that a mask of its own hides, [B, D, H, W] on the
    CPU; NaN elsewhere."""
    masks = plan.masks([f"{key}:teacher" for key in batch.mask_keys], step)
    result = reconstruct(teacher.model, batch, masks, plan.seed, step, scoring)
    return cell_errors(result.prediction, result.targets, result.predicted)
