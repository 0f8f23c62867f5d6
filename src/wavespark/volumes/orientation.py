"""Directions: what an affine says about axes and spacing, and how arrays are turned into RAS order
without resampling.

An affine maps an index (i, j, k, 1) to millimetres; RAS means that x grows to the right, y to the
front (anterior), z upwards (superior). DICOM writes LPS, where x and y have the other sign: that is
turned at the border and nowhere else.
"""

import numpy as np

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns LPS millimetres into RAS millimetres, and back."""

_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Millimetres per voxel along i, j, k: lengths of the affine's columns."""
    i, j, k = np.sqrt((np.asarray(affine, np.float64)[:3, :3] ** 2).sum(axis=0)).tolist()
    return i, j, k


def is_usable(affine: np.ndarray) -> bool:
    """True if the affine is finite, its last row is (0, 0, 0, 1) and it can be inverted at any
    scale of its columns."""
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], [0, 0, 0, 1]):
        return False
    spacing = np.array(spacing_of(affine))
    return bool((spacing > 1e-9).all() and abs(np.linalg.det(affine[:3, :3] / spacing)) > 1e-4)


def axes_to_ras(affine: np.ndarray) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """The array axis that runs closest along R, A and S, and whether it must be flipped (nibabel's
    rule).

    Returns:
        (order, flip): `voxels.transpose(order)` then flipping along the marked axes points to R, A,
        S.
    """
    from nibabel.orientations import io_orientation  # not at the top: settings are checked without nibabel

    found = io_orientation(np.asarray(affine, np.float64))  # row = array axis: (direction it runs along, +1 or -1)
    order = np.argsort(found[:, 0])
    x, y, z = order.tolist()
    r, a, s = (found[order, 1] < 0).tolist()
    return (x, y, z), (r, a, s)


def axis_codes(affine: np.ndarray) -> str:
    """Name the directions in which i, j, k grow, for example `RAS` or `LIA`."""
    order, flip = axes_to_ras(affine)
    letters = {axis: _LETTERS[row][not flip[row]] for row, axis in enumerate(order)}
    return "".join(letters[axis] for axis in range(3))


def to_ras(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels with axes running closest to R, A, S, by permuting and flipping only.

    Args:
        array: [..., i, j, k]; leading axes (channels) stay where they are.
        affine: [4, 4], index to RAS mm.

    Returns:
        A view of the array, and its affine.
    """
    order, flip = axes_to_ras(affine)
    lead = array.ndim - 3
    turned = array.transpose(*range(lead), *(lead + axis for axis in order))
    x, y, z = (slice(None, None, -1 if flipped else 1) for flipped in flip)
    turned = turned[..., x, y, z]
    back = np.zeros((4, 4))  # index in the turned array -> index in the given one
    back[3, 3] = 1
    for new, (old, flipped) in enumerate(zip(order, flip, strict=True)):
        back[old, new] = -1 if flipped else 1
        back[old, 3] = array.shape[lead + old] - 1 if flipped else 0
    return turned, np.asarray(affine, np.float64) @ back


def affine_from_axes(axes: str, spacing: tuple[float, float, float]) -> np.ndarray:
    """The affine of an upright grid whose i, j, k grow towards the letters of `axes`, with its
    first voxel at 0.

    >>> affine_from_axes("LPS", (1.0, 2.0, 3.0))[:3, :3].tolist()
    [[-1.0, 0.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 3.0]]

    Raises:
        ValueError: if the letters do not name three different directions.
    """
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, letter in enumerate(axes):
        row = next((r for r, pair in enumerate(_LETTERS) if letter in pair), None)
        if row is None or len(axes) != 3:
            raise ValueError("axes must be three letters, one each of R or L, A or P, S or I, for example 'LPS'")
        affine[row, column] = spacing[column] * (1 if letter == _LETTERS[row][1] else -1)
    if not is_usable(affine):
        raise ValueError("axes must be three letters, one each of R or L, A or P, S or I, with positive spacing")
    return affine
