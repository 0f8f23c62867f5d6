"""Detection of heads in CT: only there does bone close a ring around a hand's breadth of soft
tissue."""

import numpy as np
from scipy import ndimage

from wavespark.volumes import spacing_of

BONE_HU = 250.0
ENCLOSED_MM2 = 4000.0
"""An axial slice through the skull encloses 80 to 180 cm^2; what a chest CT was seen to enclose
stays below 10."""

SHARE = 0.15
"""Smallest share of slices with a closed ring; after surgery or a fracture most slices are open."""

_GAP_MM = 4.0


def shows_a_skull(voxels: np.ndarray, affine: np.ndarray) -> bool:
    """True if enough axial slices have soft tissue that bone encloses.

    Args:
        voxels: float32 [D, H, W], HU, along R, A, S.
        affine: [4, 4], index to RAS mm.
    """
    spacing = spacing_of(affine)
    every = max(1, voxels.shape[2] // 40)
    coarse = [max(1, round(1.5 / s)) for s in spacing[:2]]
    closed = [
        _is_closed(voxels[:: coarse[0], :: coarse[1], k], spacing, coarse) for k in range(0, voxels.shape[2], every)
    ]
    return float(np.mean(closed)) >= SHARE


def _is_closed(plane: np.ndarray, spacing: tuple[float, float, float], coarse: list[int]) -> bool:
    steps = spacing[0] * coarse[0], spacing[1] * coarse[1]
    bone = ndimage.distance_transform_edt(plane <= BONE_HU, sampling=steps) <= _GAP_MM / 2
    inside = ndimage.binary_fill_holes(bone) & ~bone & (plane > -200) & (plane < BONE_HU)
    labels, count = ndimage.label(inside)
    if not count:
        return False
    return float(np.bincount(labels.ravel())[1:].max()) * steps[0] * steps[1] >= ENCLOSED_MM2
