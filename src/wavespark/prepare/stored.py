"""A prepared volume: what it is, and its voxels on demand.

A handle of blosc2 can neither be pickled nor survive a fork: files are opened when first read, once
a process.
"""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wavespark.errors import ShapeError, StoreError
from wavespark.prepare.intensity import Encoding
from wavespark.prepare.item_files import FOREGROUND, VOXELS, label_file
from wavespark.shapes import Triple, as_triple

_OPEN_AT_ONCE = 64


class Items:
    """The files of a store, opened when first read, once a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._open: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def __getstate__(self) -> Path:
        return self.folder

    def __setstate__(self, folder: Path) -> None:
        self.__init__(folder)  # type: ignore[misc]

    def array(self, name: str, file: str) -> Any:
        """The blosc2 array of a file of an item.

        Raises:
            StoreError: if the file is missing or damaged.
        """
        if self._process != os.getpid():
            self._reset()
        key = name, file
        if key not in self._open:
            import blosc2  # not at the top: a store is looked at without it

            blosc2.set_nthreads(
                1
            )  # before first use: threads of blosc2 do not survive a fork, and the child would wait for ever
            try:
                array = blosc2.open(str(self.folder / name / file), mode="r", mmap_mode="r")
            except FileNotFoundError:
                raise StoreError(
                    f"{self.folder.parent}: item {name} has no {file}: run the same preparation again"
                ) from None
            except Exception:
                raise damaged(self.folder.parent, name, file) from None
            if not isinstance(array, blosc2.NDArray):
                raise damaged(self.folder.parent, name, file)
            self._open[key] = array
            if len(self._open) > _OPEN_AT_ONCE:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]


def damaged(store: Path, name: str, file: str) -> StoreError:
    return StoreError(
        f"{store}: {file} of item {name} is damaged: delete {store / 'items' / name} and run the same preparation again"
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredVolume:
    """A prepared volume: what it is, and its voxels on demand. Axes D, H, W follow R, A, S."""

    id: str
    """Keyed hash: may be shown."""
    patient: str
    """Pseudonym."""
    content: str
    """SHA-256 of what was read: keys draws and splits."""
    modality: str
    """`MR` or `CT`."""
    contrast: str | None
    shape: tuple[int, int, int, int]
    """Channels, D, H, W."""
    affine: np.ndarray
    """float64 [4, 4]: index of the stored grid to RAS mm."""
    notes: tuple[str, ...]
    """Reason codes of what was odd but usable."""
    encoding: Encoding
    source_shape: Triple
    """Voxels of the volume as it was read."""
    source_affine: np.ndarray
    """float64 [4, 4]: index of the volume as it was read to RAS mm."""
    items: Items
    targets: Mapping[str, float] = field(default_factory=dict)
    """Labels of the whole volume, by name, as probes use them."""
    marks: tuple[tuple[str, tuple[float, float, float]], ...] = ()
    """Points that somebody set: name and RAS mm."""
    label_values: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Values that occur in each label map, by name."""

    def labels(self) -> tuple[str, ...]:
        """Names of the label maps that lie beside the voxels."""
        return tuple(self.label_values)

    @property
    def channels(self) -> int:
        """Channels of `read()`."""
        return self.shape[0]

    @property
    def size(self) -> Triple:
        """Voxels along D, H, W."""
        return self.shape[1:]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres per voxel along D, H, W."""
        d, h, w = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).tolist()
        return d, h, w

    def read(self, start: Sequence[int] | None = None, size: Sequence[int] | None = None) -> np.ndarray:
        """Voxels of a box, or all; only the chunks that it touches are read.

        Args:
            start: first voxel along D, H, W; 0, 0, 0 if None.
            size: voxels along D, H, W; up to the end if None.

        Returns:
            float32 [C, D, H, W].

        Raises:
            ShapeError: if the box is empty or reaches out of the volume.
            StoreError: if the file is missing or damaged.
        """
        return self.encoding.decode(self._numbers(VOXELS, start, size))

    def read_foreground(self, start: Sequence[int] | None = None, size: Sequence[int] | None = None) -> np.ndarray:
        """Which voxels of a box are the head: bool [D, H, W]. Arguments and errors as `read`."""
        return self._numbers(FOREGROUND, start, size).view(np.bool_)

    def read_label(
        self, name: str, start: Sequence[int] | None = None, size: Sequence[int] | None = None
    ) -> np.ndarray:
        """A label map of a box: whole numbers [D, H, W], 0 for background.

        Other arguments and errors as `read`.

        Raises:
            KeyError: if the volume has no such map, see `labels`.
        """
        if name not in self.label_values:
            raise KeyError(f"volume {self.id} has no label map {name!r}, it has {', '.join(self.labels()) or 'none'}")
        return self._numbers(label_file(name), start, size)

    def _numbers(self, file: str, start: Sequence[int] | None, size: Sequence[int] | None) -> np.ndarray:
        box = self._box(start, size)
        array = self.items.array(self.id, file)
        if array.shape != self.size:
            raise damaged(self.items.folder.parent, self.id, file)
        try:
            return np.asarray(array[box])
        except Exception:
            raise damaged(self.items.folder.parent, self.id, file) from None

    def _box(self, start: Sequence[int] | None, size: Sequence[int] | None) -> tuple[slice, slice, slice]:
        first = (0, 0, 0) if start is None else as_triple([int(s) for s in start], "start")
        rest = (
            tuple(n - f for n, f in zip(self.size, first, strict=True))
            if size is None
            else as_triple([int(s) for s in size], "size")
        )
        if any(f < 0 or r < 1 or f + r > n for f, r, n in zip(first, rest, self.size, strict=True)):
            raise ShapeError(
                f"a box from {first} of size {rest} is not inside volume {self.id} of size {self.size}: pad it later"
            )
        d, h, w = (slice(f, f + r) for f, r in zip(first, rest, strict=True))
        return d, h, w

    def __repr__(self) -> str:
        size, step = (" x ".join(format(x, ".4g") for x in xs) for xs in (self.size, self.spacing))
        return f"<StoredVolume {self.id}: {self.modality} {self.contrast or '-'}, {self.channels} x {size} @ {step} mm>"
