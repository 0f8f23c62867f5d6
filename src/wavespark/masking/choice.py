"""An exact number of cells, by whole blocks in random order.

Legend: S cells of one volume in a row.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from wavespark.shapes import Triple, ceil_div, product

BoolS = np.ndarray[Any, np.dtype[np.bool_]]
FloatS = np.ndarray[Any, np.dtype[np.float64]]
IntS = np.ndarray[Any, np.dtype[np.intp]]


def choose(
    valid_S: BoolS,
    count: int,
    grid: Triple,
    edges: Triple,
    stream: np.random.Generator,
    weights_S: FloatS | None = None,
    forced_S: IntS | None = None,
) -> BoolS:
    """Choose exactly `count` of the valid cells, by whole blocks as far as they fit.

    `forced_S` is 1 where a cell must be chosen, -1 where it must not be, and 0 where chance
    decides; blocks are then single cells.

    The cells stand in a circle, blocks in random order and in random order inside a block, and an
    arc of `count` is taken. If all blocks have the same number of valid cells the arc starts at a
    block, so that only its last block is cut, and every cell has the same chance by symmetry. If
    not, that would favour the cells of small blocks, so the arc starts at any cell: a point on a
    circle lies in a random arc with probability count / valid whatever the order.
    """
    block_of_S, num_blocks = block_of_cells(grid, edges)
    cells = np.flatnonzero(valid_S)
    blocks = block_of_S[cells]
    size_of_block = np.bincount(blocks, minlength=num_blocks)
    inside = stream.random(len(cells))
    place_of_block = stream.permutation(num_blocks)
    start = 0
    used = size_of_block > 0
    mean_of_block = np.ones(num_blocks)
    if weights_S is not None:
        total_of_block = np.bincount(blocks, weights=weights_S[cells], minlength=num_blocks)
        mean_of_block = total_of_block / np.maximum(size_of_block, 1)
    if forced_S is not None or np.ptp(mean_of_block[used]) > 0:
        place_of_block = _weighted_places(mean_of_block, stream, forced_S)
    elif np.ptp(size_of_block[used]) > 0:
        start = int(stream.integers(len(cells)))
    circle = cells[np.argsort(place_of_block[blocks] + inside)]
    chosen_S = np.zeros_like(valid_S)
    chosen_S[circle.take(np.arange(start, start + count), mode="wrap")] = True
    return chosen_S


def _weighted_places(weights: FloatS, stream: np.random.Generator, forced: IntS | None = None) -> IntS:
    """Draw places without replacement by weight (Gumbel top-k: Kool et al., ICML 2019); zero
    weights come last.

    Forced blocks come before (1) or after (-1) all others, whatever their weights.
    """
    with np.errstate(divide="ignore"):
        scores = np.maximum(np.log(weights / weights.max()), -1e6) + stream.gumbel(size=len(weights))
    order = np.argsort(-scores) if forced is None else np.lexsort((-scores, -forced))
    return np.argsort(order)


@lru_cache(maxsize=64)
def block_of_cells(grid: Triple, edges: Triple) -> tuple[IntS, int]:
    """The block of each cell, and how many blocks there are."""
    d, h, w = (np.arange(cells) // edge for cells, edge in zip(grid, edges, strict=True))
    blocks = ceil_div(grid, edges)
    block_of_S = ((d[:, None, None] * blocks[1] + h[:, None]) * blocks[2] + w).reshape(-1)
    block_of_S.flags.writeable = False
    return block_of_S, product(blocks)
