"""Prepared volumes in memory, for a task's `predict` without a store."""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np

from wavespark.prepare.item import Item
from wavespark.shapes import Triple
from wavespark.volumes import spacing_of


class Readable(Protocol):
    """A prepared volume, in a store or in memory."""

    @property
    def modality(self) -> str: ...
    @property
    def size(self) -> Triple: ...
    @property
    def spacing(self) -> tuple[float, float, float]: ...
    def read(self) -> np.ndarray: ...
    def read_foreground(self) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MemoryVolume:
    """Values and foreground of a volume that was prepared just now."""

    voxels: np.ndarray
    """float32 [C, D, H, W]."""
    foreground: np.ndarray
    """bool [D, H, W]."""
    affine: np.ndarray
    modality: str
    contrast: str | None = None

    @classmethod
    def of(cls, item: Item, modality: str, contrast: str | None) -> Self:
        """Take values and foreground of a volume that a recipe has prepared."""
        voxels = item.encoding.decode(item.numbers)
        return cls(voxels=voxels, foreground=item.foreground, affine=item.affine, modality=modality, contrast=contrast)

    @property
    def size(self) -> Triple:
        """Voxels along D, H, W."""
        d, h, w = self.foreground.shape
        return d, h, w

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Mm per voxel along D, H, W."""
        d, h, w = spacing_of(self.affine)
        return d, h, w

    def read(self) -> np.ndarray:
        """float32 [C, D, H, W]."""
        return self.voxels

    def read_foreground(self) -> np.ndarray:
        """bool [D, H, W]."""
        return self.foreground

    def mirrored(self) -> "MemoryVolume":
        """Left and right exchanged."""
        voxels, foreground = np.ascontiguousarray(self.voxels[:, ::-1]), np.ascontiguousarray(self.foreground[::-1])
        return replace(self, voxels=voxels, foreground=foreground)
