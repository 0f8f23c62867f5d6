"""The grid of cells, and how many of them are hidden: all that can be known before anything
runs."""

import math
import operator
from collections.abc import Sequence
from typing import Literal

from wavespark.errors import MaskError
from wavespark.shapes import Triple, ceil_div, product

Block = int | Literal["adaptive"]
"""Edge of a block in cells, or the rule of `adaptive_edge`."""


def hidden_count(valid: int, ratio: float) -> int:
    """Return how many of `valid` cells are hidden: rounded half up, but never none and never all.

    >>> hidden_count(512, 0.6), hidden_count(2, 0.99)
    (307, 1)
    """
    return min(max(math.floor(ratio * valid + 0.5), 1), valid - 1)


def local_count(hidden: int, local_ratio: float) -> int:
    """Return how many of `hidden` cells are local: rounded half up; never none and never all if
    there are at least two.

    >>> local_count(307, 0.8), local_count(1, 0.8)
    (246, 0)
    """
    return hidden_count(hidden, local_ratio)


def adaptive_edge(cells: int) -> int:
    """Block edge along an axis of so many cells: up to 2 -> 1, up to 4 -> 2, else 4.

    The 2025-10 system takes one edge from the smallest side for all axes, which gives single-cell
    blocks on flat grids; here each axis has its own, which is the same on cubes.
    """
    return 1 if cells <= 2 else 2 if cells <= 4 else 4


def checked_triple(value: int | Sequence[int], name: str) -> Triple:
    """Three whole numbers of at least 1, from one or three of them, in a new tuple.

    Raises:
        MaskError: if they are not.
    """
    try:
        triple = tuple(operator.index(v) for v in ((value,) * 3 if isinstance(value, int) else value))
    except TypeError:
        triple = ()
    if len(triple) != 3 or min(triple) < 1 or any(isinstance(v, bool) for v in triple):
        raise MaskError(f"{name} must be three whole numbers of at least 1, got {value!r}. Example: {name}=(8, 8, 8)")
    return triple[0], triple[1], triple[2]


def checked_ratio(ratio: float, name: str) -> float:
    """A share strictly between 0 and 1.

    Raises:
        MaskError: if it is not.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < 1:
        raise MaskError(f"{name} must be strictly between 0 and 1, got {ratio!r}. For example {name}=0.6")
    return float(ratio)


def block_shape(grid: Triple, block: Block) -> Triple:
    """Cells in a whole block along each axis; a block never reaches beyond the grid.

    Raises:
        MaskError: if `block` is neither a whole number of at least 1 nor "adaptive".
    """
    if block == "adaptive":
        d, h, w = (adaptive_edge(cells) for cells in grid)
        return d, h, w
    if isinstance(block, bool) or not isinstance(block, int) or block < 1:
        raise MaskError(f"block must be a whole number of at least 1 or 'adaptive', got {block!r}. For example block=1")
    d, h, w = (min(block, cells) for cells in grid)
    return d, h, w


def check_masking(grid: Triple, ratio: float, block: Block = 1) -> None:
    """Check the settings of a masking, without torch.

    Raises:
        MaskError: if such a masking is not possible; the message says what to change.
    """
    checked_ratio(ratio, "ratio")
    check_grid(checked_triple(grid, "grid"), block, strict=False)


def check_grid(grid: Triple, block: Block, *, strict: bool, context: str = "") -> Triple:
    """The block shape, if some cell can be hidden and some cell be visible.

    Raises:
        MaskError: if the grid has a single cell; with `strict` also if it has a single block.
    """
    edges = block_shape(grid, block)
    if product(grid) < 2:
        raise MaskError(
            f"{context}grid {grid} with block {block} has 1 cell: at least one must be visible and one hidden. "
            "Use smaller cells or a larger crop"
        )
    if strict and product(ceil_div(grid, edges)) < 2:
        raise MaskError(
            f"{context}grid {grid} with block {block} is a single block, and strict masking needs at least two. "
            f"Use block={max(1, max(grid) // 2)} or less, block='adaptive', smaller cells or a larger crop"
        )
    return edges
