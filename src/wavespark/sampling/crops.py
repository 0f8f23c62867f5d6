"""A crop: a box of a stored volume with its foreground. Axes: C channels, D H W voxels."""

from dataclasses import dataclass

import numpy as np

from wavespark.prepare import StoredVolume
from wavespark.shapes import Triple


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


def read_crop(volume: StoredVolume, region: Region, start: Triple, size: Triple) -> Crop:
    """The box from `start`; where it reaches out of the region it holds the box's smallest value and is no foreground."""
    first = tuple(max(s, r) for s, r in zip(start, region.start, strict=True))
    last = tuple(min(s + n, r + m) for s, n, r, m in zip(start, size, region.start, region.size, strict=True))
    inner = tuple(b - a for a, b in zip(first, last, strict=True))
    voxels, foreground = volume.read(first, inner), volume.read_foreground(first, inner)
    if inner != size:
        margin = [(a - s, s + n - b) for a, b, s, n in zip(first, last, start, size, strict=True)]
        lowest = voxels.min(axis=(1, 2, 3))
        padded = np.broadcast_to(lowest[:, None, None, None], (len(lowest), *size)).copy()
        box = tuple(slice(m[0], n - m[1]) for m, n in zip(margin, size, strict=True))
        padded[(slice(None), *box)] = voxels
        voxels, foreground = padded, np.pad(foreground, margin)
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
    """A crop of the volume with that many more voxels before and after it along each axis; the region still bounds what it shows."""
    a, b, c = (s - m for s, m in zip(crop.start, before, strict=True))
    d, h, w = (n + m + k for n, m, k in zip(crop.foreground.shape, before, after, strict=True))
    return read_crop(volume, region, (a, b, c), (d, h, w))


def random_crop(volume: StoredVolume, region: Region, size: Triple, rng: np.random.Generator, tries: int = 4) -> Crop:
    """A crop at a random place of the region, the first of a few with at least a quarter foreground, else the fullest."""
    best: Crop | None = None
    for _ in range(tries):
        crop = read_crop(volume, region, _place(region, size, rng), size)
        if crop.foreground.mean() >= 0.25:
            return crop
        if best is None or crop.foreground.mean() > best.foreground.mean():
            best = crop
    if best is None:
        raise ValueError("tries must be at least 1")
    return best


def _place(region: Region, size: Triple, rng: np.random.Generator) -> Triple:
    """Uniform; centred along an axis on which the region is smaller than the crop."""
    d, h, w = (
        r + int(rng.integers(0, m - n + 1)) if m >= n else r - (n - m) // 2
        for r, m, n in zip(region.start, region.size, size, strict=True)
    )
    return d, h, w
