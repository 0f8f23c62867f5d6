"""Choice of the slices and grey windows of a reconstruction's pictures."""

import numpy as np

from wavespark.pages.planes import Plane
from wavespark.report.examples import Case


def position(case: Case, plane: Plane) -> int:
    """Choose the slice to show: hidden and visible foreground both plentiful; nearest the middle if
    several are.

    The prediction plays no part.
    """
    others = tuple(a for a in range(3) if a != plane.axis)
    hidden = np.count_nonzero(case.scored, axis=others)
    seen = np.count_nonzero(case.visible & case.foreground, axis=others)
    worth = np.minimum(hidden, seen)
    candidates = np.flatnonzero(worth >= 0.95 * worth.max()) if worth.max() else np.arange(len(worth))
    return int(candidates[np.argmin(np.abs(candidates - (len(worth) - 1) / 2))])


def window(case: Case, channel: int = 0) -> tuple[float, float]:
    """Return the values shown as black and white in every picture of a case.

    They are percentiles 0.5 and 99.5 of the original's foreground.
    """
    values = case.original[channel][case.foreground]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(p) for p in np.percentile(values, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1.0)
