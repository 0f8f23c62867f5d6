"""Vessels on a grid: thousands of short capsules at once, each seen only by the voxels around
it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavespark.samples.canvas import Box, Canvas
from wavespark.samples.fields import Array

_BATCH = 500_000


@dataclass(frozen=True, slots=True)
class Tubes:
    """Voxels that a set of vessels covers."""

    share: Array
    """Share of each voxel that lies in a vessel `[D, H, W]`, 0 to 1."""
    core: Array
    """The same for vessels at least one voxel wide: more than one half means "on a vessel"."""


def draw_tubes(canvas: Canvas, start_N3: Array, end_N3: Array, radius_N: Array) -> Tubes:
    """Capsules between world points, mm.

    A vessel thinner than a voxel keeps its cross-section: its share is scaled down to the area that
    it really has.
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
        neighbours = np.stack(np.meshgrid(*(np.arange(-s, s + 1) for s in size), indexing="ij"), axis=-1).reshape(-1, 3)
        for part in np.array_split(which, 1 + len(which) * len(neighbours) // _BATCH):
            voxels = index[part][:, None] + neighbours
            kept = np.all((voxels >= 0) & (voxels < np.array(canvas.shape)), axis=-1)
            flat = np.ravel_multi_index(tuple(voxels[kept].T), canvas.shape)
            where = voxels.astype(np.float32) * spacing + origin
            distance = _to_capsule(where, start_N3[part][:, None], end_N3[part][:, None])
            r = radius_N[part][:, None]
            thin = np.minimum(1, np.pi * (r / h) ** 2 / (0.5 + r / h))
            np.maximum.at(share.reshape(-1), flat, (canvas.inside(distance - r) * thin)[kept])
            np.maximum.at(core.reshape(-1), flat, canvas.inside(distance - np.maximum(r, h / 2))[kept])
    return Tubes(share, core)


def draw_balls(canvas: Canvas, centres_N3: NDArray[Any], radii_N3: NDArray[Any]) -> tuple[Box | None, Array]:
    """The box around a few ellipsoids at world points, mm, and the share of each of its voxels
    inside any of them."""
    margin = 2 * canvas.spacing
    box = canvas.between((centres_N3 - radii_N3).min(axis=0) - margin, (centres_N3 + radii_N3).max(axis=0) + margin)
    if box is None:
        return None, np.zeros((0, 0, 0), np.float32)
    d, h, w = (axis[cut] for axis, cut in zip(canvas.axes, box, strict=True))
    grid = np.stack(np.meshgrid(d, h, w, indexing="ij"), axis=-1)
    share = np.zeros(grid.shape[:3], np.float32)
    for centre, radii in zip(centres_N3, radii_N3, strict=True):
        k0 = np.linalg.norm((grid - centre) / radii, axis=-1)
        k1 = np.linalg.norm((grid - centre) / radii**2, axis=-1)
        share = np.maximum(share, canvas.inside(k0 * (k0 - 1) / np.maximum(k1, 1e-4)).astype(np.float32))
    return box, share


def _to_capsule(p: Array, a: Array, b: Array) -> Array:
    e = b - a
    t = np.clip(((p - a) * e).sum(-1) / np.maximum((e * e).sum(-1), np.float32(1e-9)), 0, 1)
    return np.asarray(np.linalg.norm(p - a - t[..., None] * e, axis=-1), dtype=np.float32)
