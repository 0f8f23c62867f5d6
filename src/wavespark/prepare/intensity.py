"""Values: HU windows with fixed bounds for CT, percentiles and z-score for MR, or as read; and how
they are kept.

CT keeps one array of HU however many windows look at it: the windows are applied when a crop is
read, so that the same HU has the same value in every volume, to the bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wavespark.errors import VolumeError
from wavespark.prepare.recipe import CTValues, MRValues

INT16 = np.iinfo(np.int16)
_SLAB = 32


@dataclass(frozen=True, slots=True)
class Encoding:
    """How stored numbers become values: `number * scale + offset`, then each window in turn."""

    scale: float = 1.0
    offset: float = 0.0
    windows: tuple[tuple[float, float], ...] = ()
    """(lowest, highest) of each channel, mapped to -1..1 and clipped; none: the values as they
    are."""

    @property
    def channels(self) -> int:
        """Channels that one stored array becomes."""
        return max(1, len(self.windows))

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        """Values of stored numbers.

        Args:
            numbers: int16 or float32 [D, H, W].

        Returns:
            float32 [C, D, H, W].
        """
        values = np.multiply(numbers, np.float32(self.scale), dtype=np.float32)
        if self.offset != 0:
            values += np.float32(self.offset)
        if not self.windows:
            return values[None]
        out = np.empty((len(self.windows), *numbers.shape), np.float32)
        for channel, (low, high) in zip(out, self.windows, strict=True):
            np.clip(values, low, high, out=channel)
            np.subtract(channel, np.float32((low + high) / 2), out=channel)
            np.multiply(channel, np.float32(2 / (high - low)), out=channel)
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain values, exact."""
        return {"scale": self.scale, "offset": self.offset, "windows": [list(w) for w in self.windows]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Encoding":
        """The reverse of `to_json`."""
        windows = tuple((float(low), float(high)) for low, high in document["windows"])
        return cls(float(document["scale"]), float(document["offset"]), windows)


def encode_ct(voxels: np.ndarray, settings: CTValues) -> tuple[np.ndarray, Encoding]:
    """HU as int16 steps, clipped to what some window shows.

    Args:
        voxels: float32 [D, H, W], HU.
    """
    if settings.values == "raw":
        return encode_raw(voxels)
    bounds = tuple(window.bounds for window in settings.windows)
    step = settings.step_hu
    lowest, highest = min(b[0] for b in bounds), max(b[1] for b in bounds)
    offset = 0.0
    if not (lowest / step >= INT16.min and highest / step <= INT16.max):
        step = max(step, (highest - lowest) / (INT16.max - INT16.min))
        offset = lowest - INT16.min * step
    return _to_int16(voxels, lowest, highest, step, offset), Encoding(step, offset, bounds)


def encode_mr(voxels: np.ndarray, foreground: np.ndarray, settings: MRValues) -> tuple[np.ndarray, Encoding]:
    """Values clipped to percentiles of the foreground, then shifted and scaled to its mean 0 and
    deviation 1.

    Args:
        voxels: float32 [D, H, W].
        foreground: bool [D, H, W], with at least one voxel.

    Raises:
        VolumeError: `constant_volume` if the foreground has one value only.
    """
    if settings.values == "raw":
        return encode_raw(voxels)
    inside = voxels[foreground]
    low, high = (float(p) for p in np.percentile(inside, settings.percentiles))
    inside = np.clip(inside, low, high)
    mean, deviation = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
    if not high > low or not deviation > 0:
        raise VolumeError("constant_volume", "the foreground has one value only: there is nothing to learn from")
    step = (high - low) / (settings.levels - 1)
    start = low + step * (settings.levels // 2)  # so that up to 65536 levels fit int16
    return _to_int16(voxels, low, high, step, start), Encoding(step / deviation, (start - mean) / deviation)


def encode_raw(voxels: np.ndarray) -> tuple[np.ndarray, Encoding]:
    """Values to the bit: int16 where they are whole numbers that fit, float32 otherwise.

    Args:
        voxels: float32 [D, H, W].
    """
    low, high = float(voxels.min()), float(voxels.max())
    whole = max(abs(low), abs(high)) < 2**24 and all(_is_whole(voxels[slab]) for slab in _slabs(voxels))
    if not whole or high - low > INT16.max - INT16.min:
        return np.ascontiguousarray(voxels, np.float32), Encoding()
    offset = 0.0 if INT16.min <= low and high <= INT16.max else low - INT16.min
    return _to_int16(voxels, low, high, 1.0, offset), Encoding(1.0, offset)


def _is_whole(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all())


def _to_int16(voxels: np.ndarray, low: float, high: float, step: float, offset: float) -> np.ndarray:
    out = np.empty(voxels.shape, np.int16)
    for slab in _slabs(voxels):
        values = np.clip(voxels[slab], low, high)
        np.subtract(values, np.float32(offset), out=values)
        np.multiply(values, np.float32(1 / step), out=values)
        out[slab] = np.rint(values, out=values)
    return out


def _slabs(voxels: np.ndarray) -> Iterator[tuple[slice, ...]]:
    """Parts that lie together in memory: a large volume is neither copied whole nor read across its
    grain."""
    axis = int(np.argmax(np.abs(voxels.strides)))
    for start in range(0, voxels.shape[axis], _SLAB):
        yield (slice(None),) * axis + (slice(start, start + _SLAB),)
