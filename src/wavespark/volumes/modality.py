"""Modality from values, for files that do not state it: Hounsfield units of a head look like
nothing else.

Thresholds are in HU. They were chosen on head CT with and without clipping, skull stripping and
padding, and on T1, T2, EPI and phase images; a decision that other data could contradict is marked
as a guess.
"""

from typing import NamedTuple

import numpy as np

_SAMPLE = 1 << 16  # values that are looked at
_AIR = (-1100.0, -850.0)
_TISSUE = (-200.0, 200.0)
_BRAIN_MODE = (12.0, 60.0)  # most frequent value above 0 of a head CT whose air was clipped at 0


class Guess(NamedTuple):
    """Modality by values."""

    modality: str
    certain: bool
    """False where another modality could have these values."""


def modality_by_values(voxels: np.ndarray) -> Guess:
    """The modality that the values of a volume suggest.

    Args:
        voxels: float32, any shape, finite.
    """
    values = sample(voxels)
    low, high = float(voxels.min()), float(voxels.max())
    if is_phase(low, high):
        return Guess("MR", certain=False)
    if low <= -500:
        below = np.unique(values[values < _AIR[0]])
        if len(below) > 3:  # padding is one number, at most two; a phase or a difference has many
            return Guess("MR", certain=False)
        air = float(((values >= _AIR[0]) & (values <= _AIR[1])).mean())
        tissue = float(((values >= _TISSUE[0]) & (values <= _TISSUE[1])).mean())
        return Guess("CT", certain=air >= 0.03 and tissue >= 0.02)
    return Guess("CT" if _is_windowed(values, low) or _is_clipped(values, low) else "MR", certain=False)


def is_phase(low: float, high: float) -> bool:
    """True for the ranges in which scanners write phase: radians, 12 bits with sign, or
    milliradians."""
    return any(
        least <= high <= most and least <= -low <= most
        for least, most in ((3.1, np.pi + 1e-3), (3100.0, 3143.0), (4000.0, 4096.5))
    )


def sample(voxels: np.ndarray) -> np.ndarray:
    """At most about 2^16 of the values, evenly spread."""
    flat = voxels.T.ravel()
    return flat[:: max(1, flat.size // _SAMPLE)]


def _is_windowed(values: np.ndarray, low: float) -> bool:
    """True if many values lie at a lowest one below -10: clipped air."""
    return low <= -10 and float((values == low).mean()) >= 0.05


def _is_clipped(values: np.ndarray, low: float) -> bool:
    """True if zeros (clipped air) surround values of which most lie near those of brain."""
    if low != 0 or float((values == 0).mean()) < 0.2:
        return False
    inside = values[values > 0]
    if inside.size < 100 or float(inside.max()) <= 60:
        return False
    counts, edges = np.histogram(inside, bins=np.arange(0.5, 200.5, 4.0))
    mode = float(edges[int(counts.argmax())]) + 2
    near = float((np.abs(inside - mode) <= 20).mean())
    return _BRAIN_MODE[0] <= mode <= _BRAIN_MODE[1] and near >= 0.5 and float((inside <= 8).mean()) <= 0.2
