"""The learning-rate schedule: linear warm-up, then half a cosine."""

import math


def learning_rate_at(step: int, steps: int, peak: float, warmup: int, final_fraction: float) -> float:
    """Return the learning rate of a step (Loshchilov and Hutter, "SGDR", 2017, eq. 5).

    >>> [round(learning_rate_at(step, 4, 1.0, 2, 0.0), 3) for step in (1, 2, 3, 4)]
    [0.5, 1.0, 0.5, 0.0]

    Args:
        step: counted from 1.
        steps: length of the run.
        peak: learning rate at the end of the warm-up.
        warmup: steps over which the rate rises from 0; 0 = none.
        final_fraction: share of the peak that is left at the last step.
    """
    if step <= warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))
