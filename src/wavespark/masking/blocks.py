"""Block masking: the same exact number of cells hidden in every volume, by whole blocks in random
order.

Legend: B batch, D H W grid of cells, S cells of one volume in a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavespark import randomness
from wavespark.errors import MaskError, ShapeError
from wavespark.masking.choice import BoolS, FloatS, IntS, choose
from wavespark.masking.grid import Block, check_grid, checked_ratio, checked_triple, hidden_count
from wavespark.masking.masks import Masks, counts
from wavespark.shapes import Triple, product

Draw = tuple[int, int, str]
"""Seed, step and volume id: all that a volume's draw depends on."""
Generator = torch.Generator | np.random.Generator


@dataclass(frozen=True, kw_only=True)
class BlockMasking:
    """Hides whole blocks of cells, an exact number of cells in every volume.

    `clamp(floor(ratio * valid + 0.5), 1, valid - 1)` cells of each volume are hidden; the last
    block is cut for that. Without weights every valid cell is hidden with the same probability,
    hidden / valid, also where blocks are unequal.

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
    """Block edge in cells, or "adaptive" (per axis 1 up to 2 cells, 2 up to 4, else 4).

    Blocks end at the border.
    """
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
        valid: Tensor | None = None,
        weights: Tensor | None = None,
        hide: Tensor | None = None,
        show: Tensor | None = None,
    ) -> Masks:
        """Draw which cells are hidden, on the CPU.

        Args:
            batch: number of volumes, drawn from `generator` one after another.
            generator: a generator of torch or numpy.
            draws: instead of both, (seed, step, volume id) of each volume; its draw depends on
                nothing else.
            valid: bool [B, D, H, W], cells that may be visible or hidden; all if None.
            weights: float [B, D, H, W], how likely each cell is to be hidden relative to the others
                of its volume, from
                0. The number of hidden cells stays exact; equal weights are no weights. A block
                weighs the mean of its valid cells.
            hide: cells that must be hidden; blocks must be single cells.
            show: cells that must stay visible; likewise.

        Returns:
            Masks whose counts are exact, forced cells included.

        Raises:
            MaskError: if a volume has fewer than two valid cells, a weight is negative or not
                finite, or there is no room for the forced cells.
            ShapeError: if `valid`, `weights`, `hide` or `show` are not [B, D, H, W] on this grid.
        """
        streams = open_streams(batch, generator, draws)
        if hide is None and show is None:
            return self.draw(streams, valid, weights)
        return self.draw(streams, valid, weights, self._forced(hide, show, len(streams)))

    def verify(self, masks: Masks) -> None:
        """Checks masks before they are used: every count exact, and each valid cell either visible
        or hidden.

        Raises:
            MaskError: if they are not as this masking draws them, for example because another grid
                or ratio was meant.
        """
        if tuple(masks.valid.shape[1:]) != self.grid:
            raise MaskError(f"the masks are on grid {tuple(masks.valid.shape[1:])}, the masking on {self.grid}")
        if (masks.visible & masks.hidden).any() or ((masks.visible | masks.hidden) != masks.valid).any():
            raise MaskError("visible and hidden cells overlap or do not make up the valid ones: draw the masks again")
        for b, (valid, hidden) in enumerate(zip(counts(masks.valid), counts(masks.hidden), strict=True)):
            if valid < 2 or hidden != hidden_count(valid, self.ratio):
                raise MaskError(f"sample {b} hides {hidden} of {valid} valid cells, which is not ratio {self.ratio}")

    def _forced(self, hide: Tensor | None, show: Tensor | None, batch: int) -> IntS:
        """Return [B, S]: 1 for cells that must be hidden, -1 for cells that must be visible, 0 for
        the others."""
        if max(self.block_shape) > 1:
            raise MaskError(f"cells can be forced where blocks are single cells, and these are of {self.block_shape}")
        forced_BS = np.zeros((batch, self.num_cells), dtype=np.intp)
        for sign, cells, name in ((1, hide, "hide"), (-1, show, "show")):
            if cells is not None:
                forced_BS += sign * _rows(cells, batch, self.grid, name).numpy().astype(np.intp)
        return forced_BS

    def draw(
        self,
        streams: Sequence[np.random.Generator],
        valid: Tensor | None,
        weights: Tensor | None,
        forced_BS: IntS | None = None,
    ) -> Masks:
        """Draw as `sample` does, from one open generator a volume, which is left just behind the
        draw."""
        valid_BS = valid_cells(valid, len(streams), self.grid, self.block)
        weights_BS = cell_weights(weights, len(streams), self.grid)
        hidden_BS = np.zeros_like(valid_BS)
        for b, stream in enumerate(streams):
            count = hidden_count(int(valid_BS[b].sum()), self.ratio)
            weights_S = None if weights_BS is None else weights_BS[b]
            forced_S = None if forced_BS is None else forced_BS[b]
            hidden_BS[b] = choose(valid_BS[b], count, self.grid, self.block_shape, stream, weights_S, forced_S)
            if forced_S is not None:
                self._check_forced(valid_BS[b], hidden_BS[b], forced_S)
        shape = (len(streams), *self.grid)
        hidden = torch.from_numpy(hidden_BS.reshape(shape))
        cells = torch.from_numpy(valid_BS.reshape(shape).copy())
        return Masks(visible=cells & ~hidden, hidden=hidden, valid=cells)

    def _check_forced(self, valid_S: BoolS, hidden_S: BoolS, forced_S: IntS) -> None:
        if hidden_S[forced_S > 0].all() and (valid_S & ~hidden_S)[forced_S < 0].all():
            return
        hide, show = int((forced_S > 0).sum()), int((forced_S < 0).sum())
        raise MaskError(
            f"{hide} cell(s) must be hidden and {show} visible on grid {self.grid}, where {int(hidden_S.sum())} of "
            f"{int(valid_S.sum())} valid cells are hidden: there is no room for them"
        )


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
