"""Losses of fine-tuning. B samples, K classes, D H W voxels."""

import torch
import torch.nn.functional as F
from torch import Tensor


def dice_and_cross_entropy(logits_BKDHW: Tensor, labels_BDHW: Tensor) -> Tensor:
    """Cross-entropy plus 1 - mean soft Dice of the foreground classes over the batch (Isensee et
    al., nnU-Net, Nature Methods 18, 2021).

    A class that is neither there nor predicted has Dice 1 through the smoothing of one voxel.

    Args:
        logits_BKDHW: class 0 is background.
        labels_BDHW: int64, from 0 to K - 1.
    """
    logits = logits_BKDHW.float()
    truth = F.one_hot(labels_BDHW, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    share = logits.softmax(1)
    axes = (0, 2, 3, 4)
    overlap, total = (share * truth).sum(axes), (share + truth).sum(axes)
    dice = (2 * overlap + 1) / (total + 1)
    return F.cross_entropy(logits, labels_BDHW) + 1 - dice[1:].mean()


def known_binary(logits_BL: Tensor, targets_BL: Tensor, weights_L: Tensor | None = None) -> Tensor:
    """Binary cross-entropy over the labels that are known (not NaN); positives of label l count
    `weights_L[l]` times."""
    known = torch.isfinite(targets_BL)
    each = F.binary_cross_entropy_with_logits(
        logits_BL.float(), targets_BL.nan_to_num().float(), reduction="none", pos_weight=weights_L
    )
    return (each * known).sum() / known.sum().clamp(min=1)


def focal_heat(logits_BDHW: Tensor, heat_BDHW: Tensor) -> Tensor:
    """Penalty-reduced focal loss of a heat map, divided by the number of its peaks (Law and Deng,
    CornerNet, ECCV 2018: alpha 2, beta 4).

    Args:
        logits_BDHW: of the heat.
        heat_BDHW: from 0 to 1; 1 at the centres.
    """
    logits = logits_BDHW.float()
    chance = logits.sigmoid()
    peak = heat_BDHW >= 1
    near = F.logsigmoid(logits) * (1 - chance) ** 2
    far = F.logsigmoid(-logits) * chance**2 * (1 - heat_BDHW) ** 4
    return -torch.where(peak, near, far).sum() / peak.sum().clamp(min=1)
