"""Which cells are visible: the same exact number hidden in every volume, by whole blocks in random order.

Legend: B batch, D H W grid of cells, N visible cells, S cells of one volume in a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from wavespark import randomness
from wavespark.errors import MaskError, ShapeError
from wavespark.masking.grid import Block, check_grid, checked_ratio, checked_triple, hidden_count
from wavespark.shapes import Triple, ceil_div, product

Draw = tuple[int, int, str]
"""Seed, step and volume id: all that a volume's draw depends on."""
Generator = torch.Generator | np.random.Generator
BoolS = np.ndarray[Any, np.dtype[np.bool_]]
FloatS = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """Which cells of each volume are visible and which hidden; invalid cells are neither."""

    visible: Bool[Tensor, "b d h w"]
    hidden: Bool[Tensor, "b d h w"]
    valid: Bool[Tensor, "b d h w"]

    @property
    def visible_sites(self) -> Int32[Tensor, "n 4"]:
        """Visible cells as (sample, d, h, w), in lexicographic order."""
        return self.visible.nonzero().int()

    @property
    def visible_share(self) -> float:
        """Visible cells among the valid ones of the batch."""
        return self._share(self.visible)

    @property
    def hidden_share(self) -> float:
        """Hidden cells among the valid ones of the batch."""
        return self._share(self.hidden)

    def shares(self) -> dict[str, float]:
        """What a step's telemetry says of its masks."""
        return {"visible_share": self.visible_share, "hidden_share": self.hidden_share}

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return type(self)(**{name: value.to(device) for name, value in vars(self).items()})

    def _share(self, cells_BDHW: Tensor) -> float:
        return int(cells_BDHW.sum()) / int(self.valid.sum())


@dataclass(frozen=True, kw_only=True)
class BlockMasking:
    """Hides whole blocks of cells, an exact number of cells in every volume.

    `clamp(floor(ratio * valid + 0.5), 1, valid - 1)` cells of each volume are hidden; the last block is cut for that.
    Without weights every valid cell is hidden with the same probability, hidden / valid, also where blocks are unequal.

    >>> m = BlockMasking(grid=(8, 8, 8)).sample(batch=2, generator=torch.Generator().manual_seed(0))
    >>> m.hidden.sum((1, 2, 3)).tolist()
    [307, 307]

    Raises:
        MaskError: if the grid has a single cell, or a setting is out of range.
    """

    grid: Triple
    """Cells along depth, height, width."""
    ratio: float = 0.6
    """Share of the valid cells to hide, strictly between 0 and 1."""
    block: Block = 1
    """Block edge in cells, or "adaptive" (per axis 1 up to 2 cells, 2 up to 4, else 4). Blocks end at the border."""
    strict: bool = False
    """Refuse a grid that is a single block."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", checked_triple(self.grid, "grid"))
        object.__setattr__(self, "ratio", checked_ratio(self.ratio, "ratio"))
        check_grid(self.grid, self.block, strict=self.strict)

    @property
    def block_shape(self) -> Triple:
        """Cells in a whole block along each axis."""
        return check_grid(self.grid, self.block, strict=False)

    @property
    def num_cells(self) -> int:
        """Cells in the grid."""
        return product(self.grid)

    @property
    def num_hidden(self) -> int:
        """Cells hidden in a volume whose cells are all valid."""
        return hidden_count(self.num_cells, self.ratio)

    def sample(
        self,
        *,
        batch: int | None = None,
        generator: Generator | None = None,
        draws: Sequence[Draw] | None = None,
        valid: Bool[Tensor, "b d h w"] | None = None,
        weights: Float[Tensor, "b d h w"] | None = None,
    ) -> Masks:
        """Draws which cells are hidden, on the CPU.

        Args:
            batch: number of volumes, drawn from `generator` one after another.
            generator: a generator of torch or numpy.
            draws: instead of both, (seed, step, volume id) of each volume; its draw depends on nothing else.
            valid: cells that may be visible or hidden; all if None.
            weights: how likely each cell is to be hidden relative to the others of its volume, from 0. The number of
                hidden cells stays exact; equal weights are no weights. A block weighs the mean of its valid cells.

        Raises:
            MaskError: if a volume has fewer than two valid cells, or a weight is negative or not finite.
            ShapeError: if `valid` or `weights` are not [B, D, H, W] on this grid.
        """
        return self.draw(open_streams(batch, generator, draws), valid, weights)

    def verify(self, masks: Masks) -> None:
        """Checks masks before they are used: every count exact, and each valid cell either visible or hidden.

        Raises:
            MaskError: if they are not as this masking draws them, for example because another grid or ratio was meant.
        """
        if tuple(masks.valid.shape[1:]) != self.grid:
            raise MaskError(f"the masks are on grid {tuple(masks.valid.shape[1:])}, the masking on {self.grid}")
        if (masks.visible & masks.hidden).any() or ((masks.visible | masks.hidden) != masks.valid).any():
            raise MaskError("visible and hidden cells overlap or do not make up the valid ones: draw the masks again")
        for b, (valid, hidden) in enumerate(zip(counts(masks.valid), counts(masks.hidden), strict=True)):
            if valid < 2 or hidden != hidden_count(valid, self.ratio):
                raise MaskError(f"sample {b} hides {hidden} of {valid} valid cells, which is not ratio {self.ratio}")

    def draw(self, streams: Sequence[np.random.Generator], valid: Tensor | None, weights: Tensor | None) -> Masks:
        """`sample` from one open generator a volume, which is left just behind the draw."""
        valid_BS = valid_cells(valid, len(streams), self.grid, self.block)
        weights_BS = cell_weights(weights, len(streams), self.grid)
        hidden_BS = np.zeros_like(valid_BS)
        for b, stream in enumerate(streams):
            count = hidden_count(int(valid_BS[b].sum()), self.ratio)
            weights_S = None if weights_BS is None else weights_BS[b]
            hidden_BS[b] = choose(valid_BS[b], count, self.grid, self.block_shape, stream, weights_S)
        shape = (len(streams), *self.grid)
        hidden = torch.from_numpy(hidden_BS.reshape(shape))
        cells = torch.from_numpy(valid_BS.reshape(shape).copy())
        return Masks(visible=cells & ~hidden, hidden=hidden, valid=cells)


def choose(
    valid_S: BoolS,
    count: int,
    grid: Triple,
    edges: Triple,
    stream: np.random.Generator,
    weights_S: FloatS | None = None,
) -> BoolS:
    """Exactly `count` of the valid cells, by whole blocks as far as they fit.

    The cells stand in a circle, blocks in random order and in random order inside a block, and an arc of `count` is
    taken. If all blocks have the same number of valid cells the arc starts at a block, so that only its last block is
    cut, and every cell has the same chance by symmetry. If not, that would favour the cells of small blocks, so the arc
    starts at any cell: a point on a circle lies in a random arc with probability count / valid whatever the order.
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
    if np.ptp(mean_of_block[used]) > 0:
        place_of_block = _weighted_places(mean_of_block, stream)
    elif np.ptp(size_of_block[used]) > 0:
        start = int(stream.integers(len(cells)))
    circle = cells[np.argsort(place_of_block[blocks] + inside)]
    chosen_S = np.zeros_like(valid_S)
    chosen_S[np.roll(circle, -start)[:count]] = True
    return chosen_S


def _weighted_places(weights: FloatS, stream: np.random.Generator) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Places of weighted draws without replacement (Gumbel top-k: Kool et al., ICML 2019); zero weights come last."""
    with np.errstate(divide="ignore"):
        scores = np.maximum(np.log(weights / weights.max()), -1e6) + stream.gumbel(size=len(weights))
    return np.argsort(np.argsort(-scores))


@lru_cache(maxsize=64)
def block_of_cells(grid: Triple, edges: Triple) -> tuple[np.ndarray[Any, np.dtype[np.intp]], int]:
    """The block of each cell, and how many blocks there are."""
    d, h, w = (np.arange(cells) // edge for cells, edge in zip(grid, edges, strict=True))
    blocks = ceil_div(grid, edges)
    block_of_S = ((d[:, None, None] * blocks[1] + h[:, None]) * blocks[2] + w).reshape(-1)
    block_of_S.flags.writeable = False
    return block_of_S, product(blocks)


def counts(cells_BDHW: Bool[Tensor, "b d h w"]) -> list[int]:
    """Number of True cells in each volume."""
    return cells_BDHW.sum((1, 2, 3)).tolist()


def open_streams(
    batch: int | None, generator: Generator | None, draws: Sequence[Draw] | None
) -> list[np.random.Generator]:
    """One generator a volume."""
    if draws and batch is None and generator is None:
        return [randomness.stream(seed, step=step, volume=volume, purpose="mask") for seed, step, volume in draws]
    if draws is not None or batch is None or generator is None:
        raise MaskError("sample takes either draws=[(seed, step, volume id), ...], not empty, or batch= and generator=")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise MaskError(f"batch must be a whole number of at least 1, got {batch!r}. For example batch=2")
    if isinstance(generator, torch.Generator):
        keys = torch.randint(2**63 - 1, (batch, 2), generator=generator, device=generator.device).cpu().numpy()
    else:
        keys = generator.integers(2**63 - 1, size=(batch, 2))
    return [np.random.Generator(np.random.Philox(key=key.astype(np.uint64))) for key in keys]


def valid_cells(valid: Tensor | None, batch: int, grid: Triple, block: Block) -> BoolS:
    """Valid cells as [B, S], at least two in each volume."""
    if valid is None:
        return np.ones((batch, product(grid)), dtype=bool)
    if valid.dtype is not torch.bool:
        raise ShapeError(f"valid must be bool, got {valid.dtype}. Compare first, for example share > 0")
    valid_BS = _rows(valid, batch, grid, "valid").numpy()
    num_valid = valid_BS.sum(1)
    if (num_valid < 2).any():
        b = int((num_valid < 2).argmax())
        raise MaskError(
            f"sample {b} on grid {grid} with block {block} has {num_valid[b]} valid cell(s): at least one must be "
            "visible and one hidden. Use smaller cells or a larger crop, or leave this volume out"
        )
    return valid_BS


def cell_weights(weights: Tensor | None, batch: int, grid: Triple) -> FloatS | None:
    """Weights as [B, S], not negative, finite."""
    if weights is None:
        return None
    weights_BS = _rows(weights, batch, grid, "weights").double().numpy()
    if not (np.isfinite(weights_BS).all() and (weights_BS >= 0).all()):
        raise MaskError("weights must be finite and not negative: clamp them, or give every cell the same")
    return weights_BS


def _rows(values_BDHW: Tensor, batch: int, grid: Triple, name: str) -> Tensor:
    if tuple(values_BDHW.shape) != (batch, *grid):
        raise ShapeError(
            f"{name} is {list(values_BDHW.shape)}, but {batch} volume(s) on grid {grid} need {[batch, *grid]}: "
            f"make {name} from the same crops and cells as the masking"
        )
    return values_BDHW.detach().cpu().reshape(batch, -1)
