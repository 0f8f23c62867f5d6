"""A crop: a box of a stored volume with its foreground. Axes: C channels, D H W voxels."""

from dataclasses import dataclass

import numpy as np

from wavespark.prepare import StoredVolume
from wavespark.sampling.scene import surrounded
from wavespark.shapes import Triple, product


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """The part of a volume that crops may touch."""

    volume: str
    """Id in the store."""
    start: Triple
    size: Triple


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Crop:
    """A training window."""

    voxels: np.ndarray
    """float32 [C, D, H, W]."""
    foreground: np.ndarray
    """bool [D, H, W]."""
    volume: str
    content: str
    """SHA-256 of the volume: keys the mask."""
    modality: str
    contrast: str | None
    start: Triple
    spacing: tuple[float, float, float]
    patient: str = ""
    """Pseudonym."""


def read_crop(
    volume: StoredVolume, region: Region, start: Triple, size: Triple, foreground: np.ndarray | None = None
) -> Crop:
    """The box from `start`; where it reaches out of the region it holds the box's smallest value
    and is no foreground.

    Args:
        volume: from which.
        region: what may be read.
        start: first voxel; may lie outside.
        size: voxels along D, H, W.
        foreground: that of the part inside, if it has been read.
    """
    first, inner = _inside(region, start, size)
    voxels = volume.read(first, inner)
    if foreground is None:
        foreground = volume.read_foreground(first, inner)
    if inner != size:
        margin = [(a - s, s + n - a - m) for a, m, s, n in zip(first, inner, start, size, strict=True)]
        voxels, foreground = surrounded(voxels, margin), np.pad(foreground, margin)
    return Crop(
        voxels=voxels,
        foreground=foreground,
        volume=volume.id,
        patient=volume.patient,
        content=volume.content,
        modality=volume.modality,
        contrast=volume.contrast,
        start=start,
        spacing=volume.spacing,
    )


def widened(volume: StoredVolume, region: Region, crop: Crop, before: Triple, after: Triple) -> Crop:
    """A crop of the volume with that many more voxels before and after it along each axis; the
    region still bounds what it shows."""
    a, b, c = (s - m for s, m in zip(crop.start, before, strict=True))
    d, h, w = (n + m + k for n, m, k in zip(crop.foreground.shape, before, after, strict=True))
    return read_crop(volume, region, (a, b, c), (d, h, w))


def random_crop(volume: StoredVolume, region: Region, size: Triple, rng: np.random.Generator, tries: int = 4) -> Crop:
    """A crop at a random place of the region, the first of a few with at least a quarter
    foreground, else the fullest."""
    best: tuple[int, Triple, np.ndarray] | None = None
    for _ in range(tries):
        start = _place(region, size, rng)
        foreground = volume.read_foreground(*_inside(region, start, size))  # voxels are read once the place is chosen
        count = int(np.count_nonzero(foreground))
        if best is None or count > best[0]:
            best = count, start, foreground
        if count >= 0.25 * product(size):
            break
    if best is None:
        raise ValueError("tries must be at least 1")
    return read_crop(volume, region, best[1], size, best[2])


def _inside(region: Region, start: Triple, size: Triple) -> tuple[Triple, Triple]:
    """First voxel and size of the part of a box that lies in the region."""
    a, b, c = (max(s, r) for s, r in zip(start, region.start, strict=True))
    d, h, w = (
        min(s + n, r + m) - f for s, n, r, m, f in zip(start, size, region.start, region.size, (a, b, c), strict=True)
    )
    return (a, b, c), (d, h, w)


def _place(region: Region, size: Triple, rng: np.random.Generator) -> Triple:
    """Uniform; centred along an axis on which the region is smaller than the crop."""
    d, h, w = (
        r + int(rng.integers(0, m - n + 1)) if m >= n else r - (n - m) // 2
        for r, m, n in zip(region.start, region.size, size, strict=True)
    )
    return d, h, w
