"""A share that changes over training: easy masks first, hard ones later."""

from dataclasses import dataclass

from wavespark.errors import MaskError
from wavespark.masking.grid import checked_ratio


@dataclass(frozen=True, kw_only=True)
class RatioSchedule:
    """A ratio that goes from `start` to `end` in a straight line over `steps` steps and stays there.

    >>> schedule = RatioSchedule(start=0.4, end=0.6, steps=100)
    >>> [round(schedule.at(step), 3) for step in (0, 50, 100, 1000)]
    [0.4, 0.5, 0.6, 0.6]

    Use it as `dataclasses.replace(masking, ratio=schedule.at(step))`.

    Raises:
        MaskError: if a ratio is not strictly between 0 and 1, or `steps` is not a whole number of at least 1.
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
        # Not start + progress * (end - start): that can miss `end` by a rounding error, and a count by one cell.
        return (1 - progress) * self.start + progress * self.end
