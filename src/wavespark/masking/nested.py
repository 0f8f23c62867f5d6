"""The two-level masking rule of the 2025-10 system, kept for `wavespark masks --grid` and checks;
no training run uses it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavespark.errors import MaskError
from wavespark.masking.blocks import BlockMasking, Draw, Generator, open_streams
from wavespark.masking.choice import choose
from wavespark.masking.grid import Block, checked_ratio, local_count
from wavespark.masking.masks import NestedMasks, counts
from wavespark.shapes import Triple


@dataclass(frozen=True, kw_only=True)
class NestedMasking:
    """Hides cells as `BlockMasking` does, and marks a share of the hidden ones as local.

    `clamp(floor(local_ratio * hidden + 0.5), 1, hidden - 1)` of a volume's hidden cells are local,
    none if it hides a single cell. The hidden cells are those that `BlockMasking` with the same
    settings hides for the same draw.

    >>> m = NestedMasking(grid=(8, 8, 8)).sample(draws=[(0, 0, "a"), (0, 0, "b")])
    >>> m.local.sum((1, 2, 3)).tolist(), m.global_only.sum((1, 2, 3)).tolist()
    ([246, 246], [61, 61])

    Raises:
        MaskError: if the grid has a single cell, or a setting is out of range.
    """

    grid: Triple
    """Cells along depth, height, width."""
    ratio: float = 0.6
    """Share of the valid cells to hide, strictly between 0 and 1."""
    local_ratio: float = 0.8
    """Share of the hidden cells to hide from the local view, too, strictly between 0 and 1."""
    block: Block = 1
    """Block edge in cells, or "adaptive"; see `BlockMasking`."""
    strict: bool = False
    """Refuse a grid that is a single block."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", self.blocks.grid)
        object.__setattr__(self, "ratio", self.blocks.ratio)
        object.__setattr__(self, "local_ratio", checked_ratio(self.local_ratio, "local_ratio"))

    @property
    def blocks(self) -> BlockMasking:
        """The masking of the global view."""
        return BlockMasking(grid=self.grid, ratio=self.ratio, block=self.block, strict=self.strict)

    @property
    def num_cells(self) -> int:
        """Cells in the grid."""
        return self.blocks.num_cells

    @property
    def num_hidden(self) -> int:
        """Cells hidden in a volume whose cells are all valid."""
        return self.blocks.num_hidden

    @property
    def num_local(self) -> int:
        """Hidden cells that are also hidden from the local view."""
        return local_count(self.num_hidden, self.local_ratio)

    def verify(self, masks: NestedMasks) -> None:
        """Checks masks before they are used: as `BlockMasking.verify`, and the hidden cells split
        exactly.

        Raises:
            MaskError: if they are not as this masking draws them.
        """
        self.blocks.verify(masks)
        if (masks.local & masks.global_only).any() or ((masks.local | masks.global_only) != masks.hidden).any():
            raise MaskError("local and global-only cells overlap or do not make up the hidden ones: draw them again")
        for b, (hidden, local) in enumerate(zip(counts(masks.hidden), counts(masks.local), strict=True)):
            if local != local_count(hidden, self.local_ratio):
                raise MaskError(f"sample {b} has {local} local of {hidden} hidden cells, not ratio {self.local_ratio}")

    def sample(
        self,
        *,
        batch: int | None = None,
        generator: Generator | None = None,
        draws: Sequence[Draw] | None = None,
        valid: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> NestedMasks:
        """Draws which cells are hidden and which of them local.

        Arguments and errors as `BlockMasking.sample`.
        """
        streams = open_streams(batch, generator, draws)
        outer = self.blocks.draw(streams, valid, weights)
        hidden_BS = outer.hidden.reshape(len(streams), -1).numpy()
        local_BS = np.zeros_like(hidden_BS)
        for b, stream in enumerate(streams):
            count = local_count(int(hidden_BS[b].sum()), self.local_ratio)
            local_BS[b] = choose(hidden_BS[b], count, self.grid, self.blocks.block_shape, stream)
        local = torch.from_numpy(local_BS.reshape(outer.hidden.shape))
        return NestedMasks(**vars(outer), global_only=outer.hidden & ~local, local=local)
