"""The seed's masking rule, kept only to show what was wrong with it. Never train with it.

Blocks of 4 cells; `max(1, int(0.6 * blocks))` whole blocks are masked; a second, independent draw
of `max(1, int(0.8 * blocks))` blocks makes local what both draws hit. Up to 4 cells along every
axis there is one block, so everything is masked; and where blocks are unequal or the two draws
overlap by chance, the shares fluctuate.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from wavespark.errors import MaskError
from wavespark.masking.blocks import Generator, open_streams
from wavespark.masking.choice import block_of_cells
from wavespark.masking.grid import block_shape, checked_ratio, checked_triple
from wavespark.masking.masks import NestedMasks
from wavespark.shapes import Triple, ceil_div, product


@dataclass(frozen=True, kw_only=True)
class LegacyRule:
    """The 2025-10 rule on one grid.

    >>> LegacyRule(grid=(4, 4, 4)).hides_everything
    True
    """

    grid: Triple
    """Cells along depth, height, width (the 2025-10 system calls them voxels)."""
    block: int = 4
    ratio: float = 0.6
    local_ratio: float = 0.8

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", checked_triple(self.grid, "grid"))
        checked_ratio(self.ratio, "ratio")
        checked_ratio(self.local_ratio, "local_ratio")
        if not isinstance(self.block, int):
            raise MaskError(f"the 2025-10 rule has blocks of a fixed edge, got {self.block!r}. For example block=4")

    @property
    def blocks(self) -> Triple:
        """Blocks along each axis."""
        return ceil_div(self.grid, block_shape(self.grid, self.block))

    @property
    def num_masked(self) -> int:
        """Masked blocks in every volume."""
        return max(1, int(product(self.blocks) * self.ratio))

    @property
    def num_local(self) -> int:
        """Blocks of the second draw in every volume; those that are masked, too, become local."""
        return max(1, int(product(self.blocks) * self.local_ratio))

    @property
    def hides_everything(self) -> bool:
        """No cell is ever visible, so a sparse tensor cannot be made and training fails."""
        return self.num_masked == product(self.blocks)

    @property
    def visible_range(self) -> tuple[int, int]:
        """Fewest and most visible cells of a volume, over all draws."""
        sizes = np.sort(self._block_sizes())
        shown = len(sizes) - self.num_masked
        return int(sizes[:shown].sum()), int(sizes[len(sizes) - shown :].sum())

    def sample(self, *, batch: int, generator: Generator) -> NestedMasks:
        """Draw as the 2025-10 system does; the visible cells may be none."""
        block_of_S, num_blocks = block_of_cells(self.grid, block_shape(self.grid, self.block))
        shape = (batch, *self.grid)
        hidden, local = np.zeros((2, batch, product(self.grid)), dtype=bool)
        for b, stream in enumerate(open_streams(batch, generator, None)):
            hidden[b] = np.isin(block_of_S, stream.permutation(num_blocks)[: self.num_masked])
            local[b] = hidden[b] & np.isin(block_of_S, stream.permutation(num_blocks)[: self.num_local])
        hidden_BDHW, local_BDHW = (torch.from_numpy(cells.reshape(shape)) for cells in (hidden, local))
        return NestedMasks(
            visible=~hidden_BDHW,
            hidden=hidden_BDHW,
            valid=torch.ones(shape, dtype=torch.bool),
            global_only=hidden_BDHW & ~local_BDHW,
            local=local_BDHW,
        )

    def most_frequent(self, batch: int) -> tuple[int, int, int, float] | None:
        """The most frequent (visible, global, local) cells of a batch and their probability; None
        for unequal blocks.

        The local blocks of a volume follow a hypergeometric distribution, those of a batch its
        convolution.
        """
        from scipy.stats import hypergeom

        sizes = np.unique(self._block_sizes())
        if len(sizes) > 1:
            return None
        total = product(self.blocks)
        of_volume = hypergeom(total, self.num_local, self.num_masked).pmf(np.arange(self.num_masked + 1))
        of_batch = np.ones(1)
        for _ in range(batch):
            of_batch = np.convolve(of_batch, of_volume)
        local = int(of_batch.argmax())
        size = int(sizes[0])
        hidden = batch * self.num_masked
        return (batch * total - hidden) * size, (hidden - local) * size, local * size, float(of_batch[local])

    def _block_sizes(self) -> np.ndarray:
        return np.bincount(block_of_cells(self.grid, block_shape(self.grid, self.block))[0])


def legacy_table(grids: Iterable[Triple] = ((2, 2, 2), (4, 4, 4), (8, 8, 8))) -> list[LegacyRule]:
    """The rule on each grid of the seed's table."""
    return [LegacyRule(grid=grid) for grid in grids]
