"""Segmentations and masks on the grid of a stored volume, and back: they follow it and never mix
their numbers."""

import numpy as np
from scipy import ndimage

from wavespark.errors import VolumeError
from wavespark.prepare.resample import gaussian_sigma
from wavespark.shapes import Triple
from wavespark.volumes import is_usable


def resample_labels(labels: np.ndarray, affine: np.ndarray, size: Triple, grid: np.ndarray) -> np.ndarray:
    """Labels on another grid: each new voxel takes the label with the largest share of it.

    Shares are the interpolated (and, where voxels grow, blurred) indicator of each label, so that a
    border lies where it would lie in a picture of it, and no label can appear that was not there.

    Args:
        labels: whole numbers [i, j, k]; 0 is background, and lies outside too.
        affine: [4, 4], index of `labels` to RAS mm.
        size: voxels of the new grid.
        grid: [4, 4], index of the new grid to RAS mm.

    Returns:
        [D, H, W], the kind of `labels`.

    Raises:
        VolumeError: if the labels are not whole numbers in three dimensions, or have no usable
            affine.

    Example:
        segmentation to the store: resample_labels(labels, affine, volume.size, volume.affine)
        a prediction back: resample_labels(found, volume.affine, volume.source_shape,
            volume.source_affine)
    """
    labels = np.asarray(labels)
    if labels.ndim != 3 or (labels.dtype.kind == "f" and not np.array_equal(labels, np.rint(labels))):
        raise VolumeError("unsupported_dtype", "labels must be whole numbers in three dimensions")
    if not is_usable(affine) or not is_usable(grid):
        raise VolumeError("bad_affine", "the matrix from labels to millimetres is not finite or cannot be inverted")
    back = np.linalg.inv(affine) @ grid
    # How far one step of the new grid goes along each axis of the labels, in voxels of the labels.
    growth = np.sqrt((back[:3, :3] ** 2).sum(axis=1))
    sigma = [gaussian_sigma(float(g)) for g in growth]
    best = np.zeros(size, labels.dtype)
    share = np.zeros(size, np.float32)
    present = [label for label in np.unique(labels) if label != 0]
    taken = np.zeros(size, np.float32)
    for label in present:
        box = _around(labels == label, sigma)
        part = (labels[box] == label).astype(np.float32)
        if any(sigma):
            part = ndimage.gaussian_filter(part, sigma, mode="constant")
        shift = back.copy()
        shift[:3, 3] -= [side.start for side in box]
        mine = ndimage.affine_transform(part, shift, output_shape=size, order=1, mode="grid-constant", cval=0.0)
        better = mine > share
        best[better], share[better] = label, mine[better]
        taken += mine
    best[1 - taken > share] = 0
    return best


def _around(mask: np.ndarray, sigma: list[float]) -> tuple[slice, ...]:
    """The box of a mask, wide enough for its blur."""
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    margin = [int(4 * s + 0.5) + 2 for s in sigma]
    return tuple(
        slice(max(0, side.start - m), min(n, side.stop + m)) for side, m, n in zip(box, margin, mask.shape, strict=True)
    )
