"""Shares that change over training: easy masks first, hard ones later. Nothing here needs torch."""

from dataclasses import dataclass
from typing import Literal

from wavespark.errors import MaskError
from wavespark.masking.grid import checked_ratio
from wavespark.randomness import stream

Guide = Literal["none", "foreground", "vessels", "hard"]


@dataclass(frozen=True, kw_only=True)
class RatioSchedule:
    """A ratio that changes linearly from `start` to `end` over `steps` steps and then stays.

    >>> schedule = RatioSchedule(start=0.4, end=0.6, steps=100)
    >>> [round(schedule.at(step), 3) for step in (0, 50, 100, 1000)]
    [0.4, 0.5, 0.6, 0.6]

    Use it as `dataclasses.replace(masking, ratio=schedule.at(step))`.

    Raises:
        MaskError: if a ratio is not strictly between 0 and 1, or `steps` is not a whole number of
            at least 1.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", checked_ratio(self.start, "start"))
        object.__setattr__(self, "end", checked_ratio(self.end, "end"))
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise MaskError(f"steps must be a whole number of at least 1, got {self.steps!r}. For example steps=1000")

    def at(self, step: int) -> float:
        """The ratio at a step, counted from 0."""
        progress = min(max(step / self.steps, 0.0), 1.0)
        # Not start + progress * (end - start): that can miss `end` by a rounding error, and a count
        # by one cell.
        return (1 - progress) * self.start + progress * self.end


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskSchedule:
    """Shares of a run, step by step: how many cells are hidden, and how strongly a guide decides
    which.

    The fields are those of the settings table `[mask]`, which documents them.
    """

    ratio: float = 0.6
    ratio_start: float = 0.6
    ratio_low: float = 0.0
    ratio_steps: int = 0
    local_ratio: float = 0.0
    local_ratio_start: float = 0.0
    guide: Guide = "none"
    guide_strength: float = 0.5
    guide_steps: int = 0

    def ratio_at(self, step: int, seed: int) -> float:
        """Return the share of cells that is hidden at a step (counted from 1) of the run with that
        seed."""
        if self.ratio_low:
            return float(stream(seed, purpose="mask ratio", step=step).uniform(self.ratio_low, self.ratio))
        if self.ratio_steps:
            return RatioSchedule(start=self.ratio_start, end=self.ratio, steps=self.ratio_steps).at(step - 1)
        return self.ratio

    def local_ratio_at(self, step: int | None = None) -> float:
        """Return the share of the second view's cells that is hidden at a step, or (None) at the
        end of training."""
        end = self.local_ratio or self.ratio
        if step is None or not self.local_ratio_start:
            return end
        return RatioSchedule(start=self.local_ratio_start, end=end, steps=self.ratio_steps).at(step - 1)

    def strength_at(self, step: int) -> float:
        """Return the share of the choice that follows the guide at a step (counted from 1)."""
        if self.guide == "none":
            return 0.0
        return self.guide_strength * (min(1.0, (step - 1) / self.guide_steps) if self.guide_steps else 1.0)

    @property
    def ratios(self) -> tuple[float, ...]:
        """The smallest and the largest share of hidden cells in the run."""
        if self.ratio_low:
            return (self.ratio_low, self.ratio)
        return (self.ratio_start, self.ratio) if self.ratio_steps else (self.ratio,)
