"""Trilinear inpainting: what the hidden voxels look like if one only interpolates the visible ones."""

import torch
import torch.nn.functional as F
from torch import Tensor


def inpaint(crop_BCDHW: Tensor, visible_BDHW: Tensor) -> Tensor:
    """The crop with every hidden voxel interpolated trilinearly from visible ones; visible voxels stay as they are.

    A pyramid of averages of visible voxels; what is hidden at a level is interpolated from the next coarser one
    (pull-push: Gortler et al., "The Lumigraph", 1996, section 3.5).

    Args:
        crop_BCDHW: voxels; hidden ones are never read.
        visible_BDHW: bool, one value a voxel.
    """
    known = visible_BDHW[:, None]
    values = crop_BCDHW.where(known, 0)
    weight = known.to(values.dtype)
    levels = [(values, weight)]
    while max(values.shape[2:]) > 1:
        odd = [s % 2 for s in values.shape[2:]]
        pad = (0, odd[2], 0, odd[1], 0, odd[0])
        total = F.avg_pool3d(F.pad(values * weight, pad), 2)
        weight = F.avg_pool3d(F.pad(weight, pad), 2)
        values, weight = torch.where(weight > 0, total / weight.clamp(min=1e-12), 0), (weight > 0).to(values.dtype)
        levels.append((values, weight))
    result = levels[-1][0]
    for values, weight in levels[-2::-1]:
        finer = F.interpolate(result, scale_factor=2.0, mode="trilinear", align_corners=False)
        d, h, w = values.shape[2:]
        result = torch.where(weight > 0, values, finer[:, :, :d, :h, :w])
    return result
