"""What a run hides, what it learns, and what it watches: the tables [mask], [objective] and [health].

The baselines are settings: dense MAE is `objective.dense`, SparK as published `objective.where = "everywhere"`, MiM `objective.second_view = 1`, AnatoMask's
idea `mask.guide = "hard"`.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from wavespark.masking.grid import check_masking, hidden_count
from wavespark.masking.schedule import Guide, MaskSchedule
from wavespark.settings import Settings
from wavespark.shapes import Triple, ceil_div, product


class MaskSettings(Settings):
    ratio: float = Field(0.6, gt=0, lt=1)
    """Share of cells that are hidden."""
    block: int | Literal["adaptive"] = 1
    """Cells along each edge of what is hidden together."""
    ratio_start: float = Field(0.6, gt=0, lt=1)
    """Share at the first step, where `ratio_steps` is above 0."""
    ratio_low: float = Field(0.0, ge=0, lt=1)
    """Above 0: the share of each step is drawn evenly between this and `ratio` (S3D: 0.6 and 0.9). What is held out is measured at `ratio`."""
    ratio_steps: int = Field(0, ge=0)
    """Steps over which the share goes from `ratio_start` to `ratio`; 0 = `ratio` from the start."""
    local_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the cells of the second view (`objective.second_view`) that are hidden; 0 = `ratio`."""
    local_ratio_start: float = Field(0.0, ge=0, lt=1)
    """That share at the first step, where `ratio_steps` is above 0; 0 = the same at every step."""
    guide: Guide = "none"
    """Which cells are hidden more often: those of the head, those with vessels, or those that a slow copy of the model reconstructs badly."""
    guide_strength: float = Field(0.5, gt=0, le=1)
    """Share of the choice that follows the guide; the rest is even. The number of hidden cells stays exact."""
    guide_steps: int = Field(0, ge=0)
    """Steps over which that share grows from 0; 0 = at once."""

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
    """A cell's channel that varies less (squared units of the prepared volume) is not scored."""
    where: Literal["foreground", "everywhere"] = "foreground"
    """Which hidden voxels are scored; everywhere is SparK as published."""
    dense: bool = False
    """The dense MAE baseline: the encoder computes all cells, and hidden voxels are zero in its input. Full price."""
    second_view: float = Field(0.0, ge=0)
    """Weight of a second, finer view inside hidden cells of the first (MiM, where it is 1); 0 = none."""
    second_view_factor: Triple = (2, 2, 2)
    """Voxels of the store that one voxel of the first view joins along D, H, W; the second view has the store's own."""
    second_view_cells: Triple = (2, 2, 2)
    """Cells of the first view that the second one covers along D, H, W."""
    contrast: float = Field(0.0, ge=0)
    """Weight of the contrast between levels (InfoNCE; 0.1 is usual); 0 = none. For classification; leave it off for segmentation."""
    contrast_pairs: Literal["second_view", "same_location"] = "second_view"
    """What is to be found again: the place of the second view among those of the first, or a cell of one level among those of the coarsest."""
    contrast_temperature: float = Field(0.15, ge=0.01, le=1)
    """Similarities are divided by this before the softmax."""
    contrast_width: int = Field(64, ge=2)
    """Channels in which features are compared."""
    contrast_below: float = Field(0.9, gt=0)
    """The contrast begins once the held-out normalised loss is below this."""
    teacher_momentum: float = Field(0.996, ge=0, lt=1)
    """The slow copy of the model keeps this share of itself at every step; it exists only where something needs it."""

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
    """What happens when features collapse: twice in a row fewer than a quarter of the directions, or a tenth of the spread, of the start."""
    not_learning: Literal["stop", "warn", "off"] = "warn"
    """What happens when the held-out normalised loss is still above 0.99 after the warm-up and `patience`."""
    patience: int = Field(200, ge=0)
    """Steps after the warm-up before `not_learning` counts."""
    non_finite: Literal["stop", "warn"] = "warn"
    """What happens when loss or gradient is not finite: no update and a warning, five such steps in a row stop; or the first one stops. With loss
    scaling (fp16) a gradient that overflows is expected now and then and does not count."""
    probe: str = "contrast"
    """Label of the manifest that is predicted from frozen features at every measure; empty = none."""
    probe_volumes: int = Field(24, ge=2)
    """Volumes for that, one crop each."""
