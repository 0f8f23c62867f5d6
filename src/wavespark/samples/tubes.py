"""Vessels on a grid: many short capsules at once, each seen only by the voxels around it."""

from dataclasses import dataclass

import numpy as np

from wavespark.samples.canvas import Box, Canvas
from wavespark.samples.fields import Array


@dataclass(frozen=True, slots=True)
class Tubes:
    """What a set of vessels covers."""

    share: Array
    """Share of each voxel that lies in a vessel `[D, H, W]`, 0 to 1."""
    core: Array
    """The same for vessels at least one voxel wide: more than one half means "on a vessel"."""


def draw_tubes(canvas: Canvas, start_N3: Array, end_N3: Array, radius_N: Array) -> Tubes:
    """Draws capsules between world points, mm.

    A vessel thinner than a voxel keeps its cross-section: its share is scaled to the area it really has.
    """
    share, core = np.zeros(canvas.shape, np.float32), np.zeros(canvas.shape, np.float32)
    h = canvas.h
    origin = np.array([a[0] for a in canvas.axes], np.float32)
    spacing = canvas.spacing.astype(np.float32)
    middle, half = (start_N3 + end_N3) / 2, np.linalg.norm(end_N3 - start_N3, axis=1) / 2
    reach = np.ceil((half + np.maximum(radius_N, h / 2) + h / 2)[:, None] / spacing).astype(int)
    index = np.rint((middle - origin) / spacing).astype(int)
    near = np.all((index + reach >= 0) & (index - reach < np.array(canvas.shape)), axis=1)
    for size in np.unique(reach[near], axis=0):
        which = np.flatnonzero(near & (reach == size).all(axis=1))
        offsets = np.stack(np.meshgrid(*(np.arange(-s, s + 1) for s in size), indexing="ij"), axis=-1).reshape(-1, 3)
        for part in np.array_split(which, 1 + len(which) * len(offsets) // 500_000):
            voxels = index[part][:, None] + offsets
            distance = _capsule(voxels.astype(np.float32) * spacing + origin, start_N3[part][:, None], end_N3[part][:, None])
            r = radius_N[part][:, None]
            thin = np.minimum(1, np.pi * (r / h) ** 2 / (0.5 + r / h))
            flat, kept = _flat(voxels, canvas.shape)
            np.maximum.at(share.reshape(-1), flat, (canvas.inside(distance - r) * thin)[kept])
            np.maximum.at(core.reshape(-1), flat, canvas.inside(distance - np.maximum(r, h / 2))[kept])
    return Tubes(share, core)


def draw_ellipsoids(canvas: Canvas, centres_N3: Array, radii_N3: Array) -> tuple[Box | None, Array]:
    """The box around a few world-aligned ellipsoids, and the share of each of its voxels inside any of them."""
    low = (centres_N3 - radii_N3).min(axis=0) - 2 * canvas.spacing
    high = (centres_N3 + radii_N3).max(axis=0) + 2 * canvas.spacing
    ends = [np.searchsorted(a, (m, n)) for a, m, n in zip(canvas.axes, low, high, strict=True)]
    if any(a >= b for a, b in ends):
        return None, np.zeros((0, 0, 0), np.float32)
    d, h, w = (slice(int(a), int(b)) for a, b in ends)
    grid = np.stack(np.meshgrid(canvas.axes[0][d], canvas.axes[1][h], canvas.axes[2][w], indexing="ij"), axis=-1)
    share = np.zeros(grid.shape[:3], np.float32)
    for centre, radii in zip(centres_N3, radii_N3, strict=True):
        k0 = np.linalg.norm((grid - centre) / radii, axis=-1)
        k1 = np.linalg.norm((grid - centre) / radii**2, axis=-1)
        share = np.maximum(share, canvas.inside(k0 * (k0 - 1) / np.maximum(k1, 1e-4)))
    return (d, h, w), np.asarray(share, dtype=np.float32)


def _capsule(p: Array, a: Array, b: Array) -> Array:
    e = b - a
    t = np.clip(((p - a) * e).sum(-1) / np.maximum((e * e).sum(-1), 1e-9), 0, 1)
    return np.asarray(np.linalg.norm(p - a - t[..., None] * e, axis=-1), dtype=np.float32)


def _flat(voxels: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    kept = np.all((voxels >= 0) & (voxels < np.array(shape)), axis=-1)
    inside = voxels[kept]
    return (inside[:, 0] * shape[1] + inside[:, 1]) * shape[2] + inside[:, 2], kept
