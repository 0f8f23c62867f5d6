"""Overlap and distance of two segmentations: Dice, the 95th percentile of the Hausdorff distance,
the normalised surface Dice.

Surfaces are voxels of a mask with a neighbour (one of six) outside it, as in MONAI; distances are
in mm.
"""

import math

import numpy as np
from scipy import ndimage

from wavespark.errors import ShapeError

Spacing = tuple[float, float, float]


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|); NaN where both are empty (Dice, Ecology 26, 1945).

    >>> dice(np.array([1, 1, 0], bool), np.array([0, 1, 1], bool))
    0.5
    """
    a, b = _masks(found, truth)
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else math.nan


def surface_distances(found: np.ndarray, truth: np.ndarray, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Mm from every surface voxel of `found` to the surface of `truth`, and the other way round;
    infinite where the other is empty.

    Args:
        found: bool [D, H, W].
        truth: bool [D, H, W].
        spacing: mm along D, H, W.

    Raises:
        ShapeError: if the shapes differ.
    """
    a, b = _masks(found, truth)
    if not (a.any() and b.any()):
        return np.full(int(_surface(a).sum()), np.inf), np.full(int(_surface(b).sum()), np.inf)
    box = ndimage.find_objects((a | b).astype(np.uint8))[0]  # surfaces lie within, and so do all distances
    edge_a, edge_b = _surface(a[box]), _surface(b[box])
    to_b = ndimage.distance_transform_edt(~edge_b, sampling=spacing)
    to_a = ndimage.distance_transform_edt(~edge_a, sampling=spacing)
    return to_b[edge_a], to_a[edge_b]


def hausdorff(found: np.ndarray, truth: np.ndarray, spacing: Spacing, percentile: float = 95) -> float:
    """The larger of both directed percentiles of the surface distances, mm; infinite if one is
    empty, NaN if both are.

    Huttenlocher et al., "Comparing images using the Hausdorff distance", IEEE TPAMI 15, 1993. See
    `surface_distances`.
    """
    there, back = surface_distances(found, truth, spacing)
    if not (len(there) or len(back)):
        return math.nan
    if not (len(there) and len(back)):
        return math.inf
    return float(max(np.percentile(there, percentile), np.percentile(back, percentile)))


def surface_dice(found: np.ndarray, truth: np.ndarray, spacing: Spacing, tolerance_mm: float = 1.0) -> float:
    """Share of both surfaces that lies within the tolerance of the other; NaN where both are empty.

    Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy",
    JMIR 23, 2021 (there with surface elements, here with surface voxels). See `surface_distances`.
    """
    there, back = surface_distances(found, truth, spacing)
    total = len(there) + len(back)
    return (int((there <= tolerance_mm).sum()) + int((back <= tolerance_mm).sum())) / total if total else math.nan


def _masks(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if found.shape != truth.shape:
        raise ShapeError(f"two segmentations must have one grid, got {found.shape} and {truth.shape}")
    return found.astype(bool, copy=False), truth.astype(bool, copy=False)


def _surface(mask: np.ndarray) -> np.ndarray:
    edge: np.ndarray = mask & ~ndimage.binary_erosion(mask)
    return edge
