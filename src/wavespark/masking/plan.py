"""The masks of a run: which cells are hidden at a step for given samples, and why.

Training, validation, the estimate and `wavespark masks CONFIG` all ask this plan.

Legend: B batch, D H W grid of cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from wavespark.errors import MaskError
from wavespark.masking.blocks import BlockMasking
from wavespark.masking.grid import Block
from wavespark.masking.masks import Masks
from wavespark.masking.schedule import MaskSchedule
from wavespark.shapes import Triple, product

HELD_OUT_STEP = 0
"""Step of held-out masks; training steps count from 1, so no training mask equals a held-out
one."""
GUIDES = {
    "none": "all cells are equally likely",
    "foreground": "cells of the head are more likely",
    "vessels": "cells with vessels are more likely",
    "hard": "cells that the EMA teacher reconstructs badly are more likely",
}
"""Why a cell is hidden, for each guide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskPlan:
    """Draws the masks of a run: of crops, of their second views, and around second views.

    Each mask depends on the seed, the step and the sample's key alone.

    >>> plan = MaskPlan(grid=(4, 4, 4), schedule=MaskSchedule(ratio=0.5, ratio_start=0.25, ratio_steps=10))
    >>> [plan.masking(step).num_hidden for step in (1, 6, 11)]
    [16, 24, 32]
    """

    grid: Triple
    """Cells of a crop along D, H, W."""
    schedule: MaskSchedule = field(default_factory=MaskSchedule)
    """Shares at each step."""
    block: Block = 1
    """Edge, in cells, of the blocks that are hidden together."""
    seed: int = 0
    """Random seed of the run."""
    tile: Triple | None = None
    """Cells of a crop that a second view covers; None = there is no second view."""
    fine_grid: Triple | None = None
    """Cells of a second view."""

    def masking(self, step: int | None = None) -> BlockMasking:
        """Return the masking of crops at a step (counted from 1); None = as held-out crops are
        masked."""
        held_out = BlockMasking(grid=self.grid, ratio=self.schedule.ratio, block=self.block)
        return held_out if step is None else replace(held_out, ratio=self.schedule.ratio_at(step, self.seed))

    def fine_masking(self, step: int | None = None) -> BlockMasking:
        """Return the masking of second views at a step; None = as held-out ones are masked.

        Raises:
            MaskError: if the run has no second view.
        """
        if self.fine_grid is None:
            raise MaskError("this run has no second view: set objective.second_view")
        return BlockMasking(grid=self.fine_grid, ratio=self.schedule.local_ratio_at(step))

    def masks(self, keys: Sequence[str], step: int, weights: Tensor | None = None) -> Masks:
        """Draw the masks of crops at a step.

        Args:
            keys: of the samples.
            step: counted from 1.
            weights: [B, D, H, W], how likely each cell is to be hidden; see `BlockMasking.sample`.

        Raises:
            MaskError: if a mask is not what the plan promises.
        """
        return self._draw(self.masking(step), keys, step, weights)

    def held_out_masks(self, keys: Sequence[str]) -> Masks:
        """Draw the masks of held-out crops, which are the same at every measure."""
        return self._draw(self.masking(), keys, HELD_OUT_STEP)

    def fine_masks(self, keys: Sequence[str], step: int) -> Masks:
        """Draw the masks of second views at a step."""
        return self._draw(self.fine_masking(step), keys, step)

    def held_out_fine_masks(self, keys: Sequence[str]) -> Masks:
        """Draw the masks of second views of held-out crops."""
        return self._draw(self.fine_masking(), keys, HELD_OUT_STEP)

    def masks_around(
        self, footprint: Tensor, keys: Sequence[str], step: int, weights: Tensor | None = None, *, hide: bool
    ) -> Masks:
        """Draw masks that hide all cells of a footprint, or show all of them.

        Args:
            footprint: bool [B, D, H, W], what the second view shows.
            keys: of the samples.
            step: counted from 1.
            weights: as in `masks`, for the other cells.
            hide: whether the footprint is hidden (a view to reconstruct) or visible (a view to
                compare with).

        Raises:
            MaskError: if there is no room for the footprint.
        """
        masking, draws = self.masking(step), [(self.seed, step, key) for key in keys]
        try:
            masks = masking.sample(
                draws=draws,
                weights=weights,
                hide=footprint if hide else None,
                show=None if hide else footprint,
            )
        except MaskError as error:
            raise MaskError(f"{error}. Use a smaller objective.second_view_cells") from None
        masking.verify(masks)
        return masks

    def explain(self, step: int) -> list[str]:
        """Return sentences: what is hidden at a step (counted from 1), and why."""
        masking, schedule = self.masking(step), self.schedule
        sentences = [
            f"Step {step}: {masking.num_hidden} of {masking.num_cells} cells are hidden in every crop: "
            f"{self._why_so_many(step, masking.ratio)}.",
            f"Which ones: {GUIDES[schedule.guide]}{self._how_strongly(step)}; "
            f"blocks of {_by(masking.block_shape)} cell(s).",
        ]
        if self.tile is not None:
            fine = self.fine_masking(step)
            sentences.append(
                f"Second view: covers {_by(self.tile)} = {product(self.tile)} cells, all of them hidden in the crop; of its own "
                f"{fine.num_cells} cells {fine.num_hidden} are hidden (share {fine.ratio:.4g})."
            )
        sentences.append(
            f"Held-out crops: {self.masking().num_hidden} of {masking.num_cells} cells, the same ones at every measure."
        )
        return sentences

    def _why_so_many(self, step: int, ratio: float) -> str:
        schedule = self.schedule
        if schedule.ratio_low:
            return f"share {ratio:.4g}, drawn for this step between {schedule.ratio_low} and {schedule.ratio}"
        if schedule.ratio_steps:
            return (
                f"share {ratio:.4g}, on the way from {schedule.ratio_start} to {schedule.ratio} "
                f"over {schedule.ratio_steps} steps"
            )
        return f"share {ratio:.4g} at every step"

    def _how_strongly(self, step: int) -> str:
        strength = self.schedule.strength_at(step)
        return f", which decides {100 * strength:.3g} % of the choice" if self.schedule.guide != "none" else ""

    def _draw(self, masking: BlockMasking, keys: Sequence[str], step: int, weights: Tensor | None = None) -> Masks:
        masks = masking.sample(draws=[(self.seed, step, key) for key in keys], weights=weights)
        masking.verify(masks)
        return masks


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
