"""Where the head is: air, table and head holder left out; the same answer every time.

Worked out on a grid of about 3 mm, because the head is large, and brought back to the volume's
grid. Distances are in mm, so that thick slices and thin ones are treated alike.
"""

import math

import numpy as np
from scipy import ndimage

from wavespark.prepare.resample import apply_along, axis_matrix, resample
from wavespark.shapes import Triple
from wavespark.volumes import spacing_of

COARSE_MM = 3.0
SOFT_TISSUE_HU = -300.0
"""Between air or foam (-1000..-900) and fat (-100)."""

TISSUE_SHARE = 0.3
"""Threshold, as a share of the median intensity of MR tissue: dark tissue (bone, far from the coil)
lies above it, noise and ghosts below."""

OPENING_MM = {"CT": 4.0, "MR": 3.0}
"""Sheets and bridges up to twice this thick (a table, a head holder, a noise bridge) are cut off
the head."""

CLOSING_MM = 6.0


def find_foreground(voxels: np.ndarray, affine: np.ndarray, modality: str) -> np.ndarray:
    """Which voxels belong to the head, cavities inside it included.

    Args:
        voxels: float32 [D, H, W]; HU for CT.
        affine: [4, 4], index to RAS mm; the axes are taken as perpendicular.
        modality: `MR` or `CT`.

    Returns:
        bool [D, H, W]; nowhere True only if the volume is constant.
    """
    spacing = np.array(spacing_of(affine))
    upright = np.diag([*spacing, 1.0])
    d, h, w = np.maximum(spacing, COARSE_MM).tolist()
    coarse, grid = resample(voxels, upright, (d, h, w), "linear")
    tissue = coarse > _threshold(coarse, modality)
    if not tissue.any():  # a CT without soft tissue, or one that is not in HU
        tissue = coarse > _clip_level(coarse)
    steps = spacing_of(grid)
    head = _largest(tissue, steps, OPENING_MM[modality])
    head = _fill(_erode(_dilate(head, steps, CLOSING_MM), steps, CLOSING_MM) | head)
    if head.all():
        return np.ones(voxels.shape, bool)
    return _back(head, (voxels.shape[0], voxels.shape[1], voxels.shape[2]), grid, upright)


def _threshold(coarse: np.ndarray, modality: str) -> float:
    return SOFT_TISSUE_HU if modality == "CT" else _clip_level(coarse)


def _clip_level(values: np.ndarray) -> float:
    """`TISSUE_SHARE` of the median of tissue: of what lies above half its own median (repeated, as
    AFNI's 3dClipLevel).

    Values count from the lowest.
    """
    low = float(values.min())
    above = values - low
    level = float(above.mean())
    for _ in range(50):
        bright = above[above > level]
        if not bright.size:
            break
        new = 0.5 * float(np.median(bright))
        if math.isclose(new, level, rel_tol=1e-4):
            break
        level = new
    return low + level * TISSUE_SHARE / 0.5


def _largest(tissue: np.ndarray, steps: tuple[float, float, float], radius: float) -> np.ndarray:
    """The largest piece thicker than twice `radius`, grown back to its border; all tissue if
    nothing is that thick."""
    core = _erode(tissue, steps, radius)
    if not core.any():
        core = tissue
    labels, count = ndimage.label(core)
    if count == 0:
        return tissue
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return _dilate(largest, steps, radius + 0.5 * max(steps)) & tissue


def _erode(mask: np.ndarray, steps: tuple[float, float, float], radius: float) -> np.ndarray:
    """Without what lies within `radius` mm of the outside; the border of the grid is not
    outside."""
    return mask if mask.all() else ndimage.distance_transform_edt(mask, sampling=steps) > radius


def _dilate(mask: np.ndarray, steps: tuple[float, float, float], radius: float) -> np.ndarray:
    return mask if not mask.any() else ndimage.distance_transform_edt(~mask, sampling=steps) <= radius


def _fill(mask: np.ndarray) -> np.ndarray:
    """With its holes: background that touches no face of the grid, in 3-D and then in each axial
    slice."""
    mask = _fill_holes(mask)
    return np.stack([_fill_holes(mask[:, :, k]) for k in range(mask.shape[2])], axis=2)


def _fill_holes(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, bool)
    for axis in range(mask.ndim):
        for end in (0, -1):
            outside[np.take(labels, end, axis=axis)] = True
    return mask | ~outside[labels]


def _back(coarse: np.ndarray, size: Triple, grid: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """A mask of the coarse grid on the fine one: linear, then one half."""
    mask: np.ndarray = coarse
    to_coarse = np.linalg.inv(grid) @ fine
    for axis in range(3):
        positions = to_coarse[axis, 3] + to_coarse[axis, axis] * np.arange(size[axis])
        mask = apply_along(mask, axis_matrix(coarse.shape[axis], positions, kernel="linear"), axis)
    return mask > 0.5


def box_around(mask: np.ndarray, spacing: tuple[float, float, float], margin_mm: float) -> tuple[slice, slice, slice]:
    """The smallest box with every True voxel, `margin_mm` wider on each side where the volume goes
    on."""
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = math.ceil(margin_mm / spacing[axis])
        box.append(slice(max(0, int(hit[0]) - margin), min(mask.shape[axis], int(hit[-1]) + 1 + margin)))
    d, h, w = box
    return d, h, w
