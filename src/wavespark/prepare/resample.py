"""Another voxel size in one linear step an axis: Gaussian (when voxels grow) and interpolation are
one sparse matrix.

Nothing is interpolated twice, an axis whose spacing already fits is left alone to the bit, and the
new affine is exact.
Axes: D, H, W follow R, A, S.
"""

import math
from typing import Literal

import numpy as np
from scipy import ndimage, sparse

from wavespark.shapes import Triple
from wavespark.volumes import spacing_of

_AT_ONCE = 2**16  # voxels

Kernel = Literal["linear", "cubic"]
Spacing = tuple[float, float, float]

SAME = 1e-3
"""Spacings that differ by less than this share are the same."""

SQUARE = 1e-3
"""Cosine between two axes above which a grid counts as sheared (a tilted gantry)."""


def gaussian_sigma(factor: float) -> float:
    """Deviation, in old voxels, of the blur that belongs to voxels `factor` times as large.

    Point-spread functions that are Gaussians as wide as a voxel at half height: their variances
    subtract (Cardoso et al., "Scale factor point spread function matching", MICCAI 2015).
    """
    return math.sqrt(max(factor**2 - 1, 0)) / (2 * math.sqrt(2 * math.log(2)))


def axis_matrix(size: int, positions: np.ndarray, *, sigma: float = 0.0, kernel: Kernel = "cubic") -> sparse.csr_array:
    """The matrix that blurs a line of voxels and reads it at `positions` (in voxels); its end
    values are repeated without limit.

    Args:
        size: voxels along the line.
        positions: float64 [n].
        sigma: deviation of the Gaussian in voxels, cut at 4 deviations; 0 for none.
        kernel: `linear`, or Keys' `cubic` convolution (a = -1/2; Keys, IEEE Trans. ASSP 29, 1981).

    Returns:
        float32 [n, size]; every row adds up to 1.
    """
    first = np.floor(positions).astype(np.int64)
    t = positions - first
    if kernel == "linear":
        taps, weights = first[:, None] + np.arange(2), np.stack([1 - t, t], axis=1)
    else:
        taps = first[:, None] + np.arange(-1, 3)
        weights = (
            np.stack(
                [((2 - t) * t - 1) * t, (3 * t - 5) * t * t + 2, ((4 - 3 * t) * t + 1) * t, (t - 1) * t * t], axis=1
            )
            / 2
        )
    matrix = _banded(taps, weights, size)
    if sigma > 0:
        radius = int(4 * sigma + 0.5)
        bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        taps = np.arange(size)[:, None] + np.arange(-radius, radius + 1)
        matrix = matrix @ _banded(taps, np.broadcast_to(bell / bell.sum(), taps.shape), size)
    return matrix.astype(np.float32)


def _banded(taps: np.ndarray, weights: np.ndarray, size: int) -> sparse.csr_array:
    rows = np.repeat(np.arange(len(taps)), taps.shape[1])
    matrix = sparse.coo_array((weights.ravel(), (rows, np.clip(taps, 0, size - 1).ravel())), shape=(len(taps), size))
    return matrix.tocsr()  # adds what falls on one voxel


def apply_along(array: np.ndarray, matrix: sparse.csr_array, axis: int) -> np.ndarray:
    """The array with `matrix` applied along one of its axes, a few planes at a time: no copy of the
    whole is made.

    Args:
        array: [D, H, W], any strides.
        matrix: [n, array.shape[axis]].

    Returns:
        float32, contiguous.
    """
    shape = list(array.shape)
    shape[axis] = matrix.shape[0]
    out = np.empty(shape, np.float32)
    across = 1 if axis == 0 else 0
    lines, results = (np.moveaxis(a, (axis, across), (0, 1)) for a in (array, out))
    step = max(1, _AT_ONCE * array.shape[across] // array.size)
    for start in range(0, array.shape[across], step):
        planes = np.ascontiguousarray(lines[:, start : start + step], np.float32)
        result = matrix @ planes.reshape(planes.shape[0], -1)
        results[:, start : start + step] = result.reshape(-1, *planes.shape[1:])
    return out


def new_size(size: Triple, old: Spacing, new: Spacing) -> Triple:
    """Voxels that cover the same extent at another spacing, at least one."""
    d, h, w = (n if _same(o, s) else max(1, round(n * o / s)) for n, o, s in zip(size, old, new, strict=True))
    return d, h, w


def _same(old: float, new: float) -> bool:
    return abs(old / new - 1) < SAME


def resample(
    array: np.ndarray, affine: np.ndarray, spacing: Spacing, kernel: Kernel = "cubic"
) -> tuple[np.ndarray, np.ndarray]:
    """The array on a grid of that spacing around the same centre, blurred first along axes whose
    voxels grow.

    A sheared grid (tilted gantry) is made square in the same single interpolation.

    Args:
        array: float32 or bool [D, H, W].
        affine: [4, 4], index to RAS mm.
        spacing: mm along D, H, W.

    Returns:
        The array (the given one where nothing changes, else float32) and its affine.
    """
    if is_sheared(affine):
        return _straighten(array, affine, spacing, kernel)
    old = spacing_of(affine)
    step = np.eye(4)
    size = new_size(_triple(array.shape), old, spacing)
    # The axis that shrinks most goes first: the others then have less to do.
    for axis in sorted(range(3), key=lambda a: old[a] / spacing[a]):
        if _same(old[axis], spacing[axis]):
            continue
        factor = spacing[axis] / old[axis]
        start = (array.shape[axis] - 1) / 2 - factor * (size[axis] - 1) / 2
        positions = start + factor * np.arange(size[axis])
        array = apply_along(
            array, axis_matrix(array.shape[axis], positions, sigma=gaussian_sigma(factor), kernel=kernel), axis
        )
        step[axis, axis], step[axis, 3] = factor, start
    return array, affine @ step


def _triple(shape: tuple[int, ...]) -> Triple:
    d, h, w = shape
    return d, h, w


def is_sheared(affine: np.ndarray) -> bool:
    """True if the axes of the grid are not perpendicular."""
    directions = affine[:3, :3] / np.array(spacing_of(affine))
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() > SQUARE)


def _straighten(
    array: np.ndarray, affine: np.ndarray, spacing: Spacing, kernel: Kernel
) -> tuple[np.ndarray, np.ndarray]:
    """A sheared grid resampled onto the nearest square one that holds all of it; outside lies the
    smallest value."""
    old = np.array(spacing_of(affine))
    left, _, right = np.linalg.svd(affine[:3, :3] / old)
    directions = left @ right  # the rotation nearest to the sheared axes
    corners = np.array(np.meshgrid(*((-0.5, n - 0.5) for n in array.shape), indexing="ij")).reshape(3, 8)
    seen = directions.T @ (affine[:3, :3] @ corners + affine[:3, 3:])
    size = np.maximum(1, np.round((seen.max(1) - seen.min(1)) / spacing)).astype(int)
    square = np.eye(4)
    square[:3, :3] = directions * spacing
    square[:3, 3] = directions @ ((seen.max(1) + seen.min(1)) / 2) - square[:3, :3] @ ((size - 1) / 2)
    sigma = [gaussian_sigma(new / o) for new, o in zip(spacing, old, strict=True)]
    smooth = ndimage.gaussian_filter(array.astype(np.float32, copy=False), sigma, mode="nearest")
    back = np.linalg.inv(affine) @ square
    order = 1 if kernel == "linear" else 3
    out = ndimage.affine_transform(
        smooth, back, output_shape=tuple(size), order=order, mode="constant", cval=float(array.min())
    )
    return out, square
