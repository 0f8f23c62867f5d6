"""Settings of masks, objective and health: the tables [mask], [objective] and [health].

The baselines are settings: dense MAE is `objective.dense`, SparK as published `objective.where =
"everywhere"`, MiM `objective.second_view = 1`, AnatoMask's idea `mask.guide = "hard"`.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from wavespark.masking.grid import check_masking, hidden_count
from wavespark.masking.schedule import Guide, MaskSchedule
from wavespark.settings import Settings
from wavespark.shapes import Triple, ceil_div, product


class MaskSettings(Settings):
    ratio: float = Field(0.6, gt=0, lt=1)
    """Share of cells to hide."""
    block: int | Literal["adaptive"] = 1
    """Edge, in cells, of the blocks that are hidden together."""
    ratio_start: float = Field(0.6, gt=0, lt=1)
    """Share at the first step, if `ratio_steps` is above 0."""
    ratio_low: float = Field(0.0, ge=0, lt=1)
    """Above 0: each step draws its share uniformly between this and `ratio` (S3D: 0.6 and 0.9).

    Held-out crops use `ratio`.
    """
    ratio_steps: int = Field(0, ge=0)
    """Steps over which the share changes from `ratio_start` to `ratio`; 0 = `ratio` from the
    start."""
    local_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the second view's cells (`objective.second_view`) to hide; 0 = `ratio`."""
    local_ratio_start: float = Field(0.0, ge=0, lt=1)
    """`local_ratio` at the first step, if `ratio_steps` is above 0; 0 = the same at every step."""
    guide: Guide = "none"
    """Cells to hide more often: those of the head, those with vessels, or those that an EMA teacher
    reconstructs badly."""
    guide_strength: float = Field(0.5, gt=0, le=1)
    """Share of the choice that follows the guide; the rest is uniform.

    The number of hidden cells stays exact.
    """
    guide_steps: int = Field(0, ge=0)
    """Steps over which `guide_strength` grows from 0; 0 = full strength from the start."""

    @model_validator(mode="after")
    def _ratios_fit(self) -> Self:
        if self.ratio_low and self.ratio_steps:
            raise ValueError(
                "the share is drawn (ratio_low) or follows a schedule (ratio_steps): leave one of them at 0"
            )
        if self.ratio_low > self.ratio:
            raise ValueError(f"ratio_low {self.ratio_low} must not be above ratio {self.ratio}")
        if self.local_ratio_start and not self.ratio_steps:
            raise ValueError("local_ratio_start needs ratio_steps, the steps over which the shares change")
        return self

    @property
    def schedule(self) -> MaskSchedule:
        """The shares at each step."""
        return MaskSchedule(**self.model_dump(exclude={"block"}))


class ObjectiveSettings(Settings):
    variance_floor: float = Field(1e-3, ge=0)
    """Smallest variance of a cell's channel that is scored, in squared units of the prepared
    volume."""
    where: Literal["foreground", "everywhere"] = "foreground"
    """Hidden voxels to score; `everywhere` is SparK as published."""
    dense: bool = False
    """Dense MAE baseline: the encoder computes all cells, with hidden voxels set to zero in its
    input. Full price."""
    second_view: float = Field(0.0, ge=0)
    """Weight of a second, finer view inside hidden cells of the first (1 in MiM); 0 = no second
    view."""
    second_view_factor: Triple = (2, 2, 2)
    """Voxels of the store averaged into one voxel of the first view, along D, H, W; the second view
    keeps the store's voxels."""
    second_view_cells: Triple = (2, 2, 2)
    """Cells of the first view that the second one covers along D, H, W."""
    contrast: float = Field(0.0, ge=0)
    """Weight of the contrastive loss between levels (InfoNCE; 0.1 is usual); 0 = none.

    It helps classification, not segmentation.
    """
    contrast_pairs: Literal["second_view", "same_location"] = "second_view"
    """Positive pairs: the second view and its place in the first, or a cell and the same place at
    the coarsest level."""
    contrast_temperature: float = Field(0.15, ge=0.01, le=1)
    """Temperature of the softmax over similarities."""
    contrast_width: int = Field(64, ge=2)
    """Channels of the projection in which features are compared."""
    contrast_below: float = Field(0.9, gt=0)
    """Held-out normalised loss below which the contrastive loss begins."""
    teacher_momentum: float = Field(0.996, ge=0, lt=1)
    """Momentum of the EMA teacher; it exists only if something needs it."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if min(self.second_view_factor) < 1 or min(self.second_view_cells) < 1:
            raise ValueError("second_view_factor and second_view_cells must be whole numbers of at least 1")
        if self.contrast and self.contrast_pairs == "second_view" and not self.second_view:
            raise ValueError(
                "contrast_pairs='second_view' needs a second view: give second_view a weight, e.g. 1, or use 'same_location'"
            )
        if self.dense and (self.second_view or self.contrast):
            raise ValueError("dense is a baseline of its own: leave second_view and contrast at 0")
        return self

    @property
    def join(self) -> Triple:
        """Voxels of the store in one voxel of the first view."""
        return self.second_view_factor if self.second_view else (1, 1, 1)

    def check_second_view(self, crop: Triple, cell: Triple, mask: MaskSettings) -> None:
        """Raises a ValueError where no second view fits into what the masks hide."""
        if not self.second_view:
            return
        grid, covered = ceil_div(crop, cell), product(self.second_view_cells)
        if any(size % edge for size, edge in zip(crop, cell, strict=True)):
            raise ValueError(f"objective.second_view needs data.crop {crop} to be whole cells of {cell} voxels")
        if mask.block != 1:
            raise ValueError("objective.second_view hides cells of its own choice together: leave mask.block at 1")
        hidden = [hidden_count(product(grid), ratio) for ratio in mask.schedule.ratios]
        fits = all(n <= g for n, g in zip(self.second_view_cells, grid, strict=True))
        if not fits or covered > min(hidden) or covered > product(grid) - max(hidden):
            raise ValueError(
                f"objective.second_view_cells {self.second_view_cells} are {covered} of the grid {grid}, of which {min(hidden)} are hidden and "
                f"{product(grid) - max(hidden)} visible: cover fewer cells, or use a larger data.crop"
            )
        if covered * product(self.second_view_factor) < 2:
            raise ValueError(
                "a second view of one cell cannot be masked: use a larger second_view_cells or second_view_factor"
            )
        d, h, w = (n * f for n, f in zip(self.second_view_cells, self.second_view_factor, strict=True))
        for ratio in {mask.schedule.local_ratio_at(1), mask.schedule.local_ratio_at()}:
            check_masking((d, h, w), ratio)


class HealthSettings(Settings):
    collapse: Literal["stop", "warn", "off"] = "stop"
    """Action when features collapse: two measures in a row below a quarter of the first effective
    rank, or a tenth of the first standard deviation."""
    not_learning: Literal["stop", "warn", "off"] = "warn"
    """Action when the held-out normalised loss is still above 0.99 after the warm-up and
    `patience`."""
    patience: int = Field(200, ge=0)
    """Steps after the warm-up before `not_learning` applies."""
    non_finite: Literal["stop", "warn"] = "warn"
    """Action when loss or gradient is not finite.

    `warn`: no update and a warning; five such steps in a row stop the run.
    `stop`: the first one stops. Gradients that overflow under loss scaling (fp16) are expected and
        do not count."""
    probe: str = "contrast"
    """Label of the manifest to predict from frozen features at every validation; empty = none."""
    probe_volumes: int = Field(24, ge=2)
    """Volumes for this probe, one crop each."""
