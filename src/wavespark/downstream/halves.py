"""Two halves of one labelled volume, so that a learning rate can be chosen with a single labelled
person."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from wavespark.downstream.items import Labelled
from wavespark.prepare import StoredVolume
from wavespark.shapes import Triple

_LEAST_VOXELS = 16
"""Voxels along the longest axis below which a volume is not cut."""


@dataclass(frozen=True, slots=True)
class Part:
    """A box of a stored volume that reads like a volume of its own.

    Attributes that do not depend on the box (`id`, `modality`, `spacing`, `channels`, ...) are
    those of the volume.
    """

    whole: StoredVolume
    start: Triple
    size: Triple

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying asks for them before there is a `whole`
            raise AttributeError(name)
        return getattr(self.whole, name)

    def read(self, start: Sequence[int] | None = None, size: Sequence[int] | None = None) -> np.ndarray:
        """float32 [C, *size]: voxels from `start` of the part; by default all of it."""
        return self.whole.read(self._moved(start), self._extent(start, size))

    def read_foreground(self, start: Sequence[int] | None = None, size: Sequence[int] | None = None) -> np.ndarray:
        """bool [*size]: foreground from `start` of the part; by default all of it."""
        return self.whole.read_foreground(self._moved(start), self._extent(start, size))

    def _moved(self, start: Sequence[int] | None) -> list[int]:
        return [a + b for a, b in zip(self.start, start or (0, 0, 0), strict=True)]

    def _extent(self, start: Sequence[int] | None, size: Sequence[int] | None) -> list[int]:
        return list(size) if size is not None else [n - a for n, a in zip(self.size, start or (0, 0, 0), strict=True)]


def halves(item: Labelled) -> tuple[Labelled, Labelled] | None:
    """The two halves of a labelled volume along its longest axis, each with its part of the label
    map and its points.

    Returns:
        None where the volume is too short to be cut.
    """
    whole = item.volume.size
    axis = int(np.argmax(whole))
    middle = whole[axis] // 2
    if whole[axis] < _LEAST_VOXELS:
        return None
    return _part(item, axis, 0, middle), _part(item, axis, middle, whole[axis])


def _part(item: Labelled, axis: int, first: int, last: int) -> Labelled:
    start, size = [0, 0, 0], list(item.volume.size)
    start[axis], size[axis] = first, last - first
    box = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    shift = np.array(start)
    places = {value: voxels[_within(voxels[:, axis], first, last)] - shift for value, voxels in item.places.items()}
    near = _within(item.points[:, axis], first, last)
    volume = Part(item.volume, (start[0], start[1], start[2]), (size[0], size[1], size[2]))
    return replace(
        item,
        volume=cast(StoredVolume, volume),
        map=None if item.map is None else np.asarray(item.map[box]),
        places={value: voxels for value, voxels in places.items() if len(voxels)},
        points=(item.points[near] - shift).astype(np.float32),
        reach_mm=item.reach_mm[near] if len(item.reach_mm) else item.reach_mm,
    )


def _within(values: np.ndarray, first: int, last: int) -> np.ndarray:
    inside: np.ndarray = (values >= first) & (values < last)
    return inside
