"""Turned, zoomed and bent windows, in millimetres: a turn of thick slices stays a turn.

One interpolation, whatever is combined.

Axes: D, H, W voxels; a position is an index along them.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from wavespark.sampling.scene import Scene
from wavespark.shapes import Triple

CONTROL_MM = 32.0
"""Distance between the control points of a bend."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Deformation:
    """Source coordinates of each voxel of a window."""

    size: Triple
    spacing: tuple[float, float, float]
    matrix: np.ndarray
    """float64 [3, 3]: from mm of the window to mm of its source, both from the centre."""
    bend: np.ndarray | None = None
    """float64 [3, a, b, c]: what a cubic B-spline over control points adds, in mm; None for
    nothing."""

    def sources(self) -> np.ndarray:
        """Position in the undeformed window of each voxel: float32 [3, D, H, W]."""
        step = np.array(self.spacing)
        turn = self.matrix * step / step[:, None]
        middle = (np.array(self.size) - 1) / 2
        axes = [np.arange(n) - m for n, m in zip(self.size, middle, strict=True)]
        out = np.empty((3, *self.size), np.float32)
        for a in range(3):
            along = [turn[a, b] * axes[b] for b in range(3)]
            plane = (along[0] + middle[a])[:, None] + along[1]
            np.add(plane[:, :, None].astype(np.float32), along[2].astype(np.float32), out=out[a])
        if self.bend is not None:
            weights = [spline_weights(n, c) for n, c in zip(self.size, self.bend.shape[1:], strict=True)]
            for a in range(3):
                out[a] += smooth_field(self.bend[a] / step[a], weights)
        return out

    def points(self, points: np.ndarray, rounds: int = 30) -> np.ndarray:
        """Move points of the undeformed window, float64 [N, 3]: the inverse of `sources`, solved by
        fixed point."""
        step, middle = np.array(self.spacing), (np.array(self.size) - 1) / 2
        target = (np.asarray(points, np.float64) - middle) * step
        back = np.linalg.inv(self.matrix)
        there = target @ back.T
        if self.bend is not None:
            for _ in range(rounds):
                there = (target - self._bend_at(there / step + middle)) @ back.T
        return there / step + middle

    def _bend_at(self, index: np.ndarray) -> np.ndarray:
        """The bend in mm at positions [N, 3]; beyond the window, that of its border."""
        bend = np.zeros((3, 4, 4, 4)) if self.bend is None else self.bend
        weights = [
            _design(np.clip(index[:, a], 0, n - 1), n, c)
            for a, (n, c) in enumerate(zip(self.size, bend.shape[1:], strict=True))
        ]
        return np.einsum("kabc,na,nb,nc->nk", bend, *weights)


def turn(degrees: np.ndarray) -> np.ndarray:
    """The rotation by three angles, about the first, then the second, then the third axis: float64
    [3, 3]."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [(1, 2), (2, 0), (0, 1)][axis]
        part = np.eye(3)
        part[a, a] = part[b, b] = math.cos(angle)
        part[a, b], part[b, a] = -math.sin(angle), math.sin(angle)
        matrix = part @ matrix
    return matrix


def control_points(size: Triple, spacing: tuple[float, float, float]) -> Triple:
    """Control points of a bend along each axis: one every `CONTROL_MM`, and those that a cubic
    spline needs beyond the ends."""
    d, h, w = (math.ceil((n - 1) * s / CONTROL_MM) + 4 for n, s in zip(size, spacing, strict=True))
    return d, h, w


def smooth_field(coefficients: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """A cubic B-spline of coefficients [a, b, c] on a grid: float32 [D, H, W]."""
    field = coefficients.astype(np.float32)
    for axis, w in enumerate(weights):
        field = np.moveaxis(np.tensordot(w, field, (1, axis)), 0, axis)
    return np.ascontiguousarray(field)


def spline_weights(size: int, control: int) -> np.ndarray:
    """Return the weights of `control` evenly spread cubic B-splines at each of `size` voxels:
    float32 [size, control]."""
    return _design(np.arange(size, dtype=np.float64), size, control).astype(np.float32)


def _design(positions: np.ndarray, size: int, control: int) -> np.ndarray:
    """Weights of `control` B-splines, evenly spread over `size` voxels, at positions: float64 [n,
    control]."""
    pieces = control - 3
    places = positions * (pieces / max(size - 1, 1))
    first = np.clip(np.floor(places).astype(np.int64), 0, pieces - 1)
    t = places - first
    taps = np.stack([(1 - t) ** 3, (3 * t - 6) * t * t + 4, ((3 - 3 * t) * t + 3) * t + 1, t**3], axis=1) / 6
    out = np.zeros((len(t), control))
    np.put_along_axis(out, first[:, None] + np.arange(4), taps, axis=1)
    return out


def margins(sources: np.ndarray) -> tuple[Triple, Triple]:
    """Return how far sources [3, D, H, W] reach out of the window, in whole voxels, before and
    after it."""
    size = sources.shape[1:]
    before = [max(0, math.ceil(-float(s.min()))) for s in sources]
    after = [max(0, math.ceil(float(s.max()) - (n - 1))) for s, n in zip(sources, size, strict=True)]
    return (before[0], before[1], before[2]), (after[0], after[1], after[2])


def deformed(wide: Scene, before: Triple, deformation: Deformation, sources: np.ndarray) -> Scene:
    """The window that a deformation makes of a wider one: voxels linear, maps nearest.

    Args:
        wide: the undeformed window with margins.
        before: its margin at the beginning of each axis.
        deformation: which gave `sources`.
        sources: float32 [3, D, H, W], positions in the undeformed window.
    """
    grid = np.empty((1, *deformation.size, 3), np.float32)
    nearest = []
    for a, (s, margin, n) in enumerate(zip(sources, before, wide.size, strict=True)):
        place = s + np.float32(margin)
        np.multiply(place, np.float32(2 / max(n - 1, 1)), out=grid[0, ..., 2 - a])
        if wide.maps:
            nearest.append(np.clip(np.rint(place).astype(np.int32), 0, n - 1))
    grid -= 1
    voxels = torch.nn.functional.grid_sample(
        torch.from_numpy(np.ascontiguousarray(wide.voxels))[None],
        torch.from_numpy(grid),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )[0].numpy()
    return replace(
        wide,
        voxels=voxels,
        maps={name: values[nearest[0], nearest[1], nearest[2]] for name, values in wide.maps.items()},
        points=deformation.points(wide.points - np.array(before)).astype(wide.points.dtype, copy=False),
    )
