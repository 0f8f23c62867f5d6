"""Axes and sizes.

Legend for tensor names, used as a suffix: B batch, C channels, D H W grid or voxels, N active sites
or cells, K kernel offsets, L tokens, V voxels in a token. Array axes D, H, W follow R, A, S (right,
anterior, superior) in prepared volumes.
"""

from collections.abc import Iterable, Sequence

Triple = tuple[int, int, int]


def as_triple(value: int | Sequence[int], name: str = "size") -> Triple:
    """Three whole numbers from one or three.

    >>> as_triple(8)
    (8, 8, 8)

    Raises:
        ValueError: if `value` is not one or three whole numbers.
    """
    values = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(values) != 3 or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        raise ValueError(f"{name} must be one or three whole numbers, got {value!r}")
    return values


def ceil_div(size: Iterable[int], by: Iterable[int]) -> Triple:
    """How many blocks of `by` cover `size`, along each axis."""
    d, h, w = (-(-s // b) for s, b in zip(size, by, strict=True))
    return d, h, w


def product(size: Iterable[int]) -> int:
    """Number of elements of a box."""
    total = 1
    for s in size:
        total *= s
    return total
