"""A grid to paint a head on: shapes are signed distances (mm, negative inside), so that every edge has its partial volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from wavespark.samples.fields import Array, SmoothField
from wavespark.shapes import Triple

Box = tuple[slice, slice, slice]
EVERYWHERE: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True, slots=True)
class Pose:
    """How a head lies in the scanner: `world = rotation @ (size * head) + shift`, mm."""

    rotation: Array
    """`[3, 3]`."""
    size: Array
    """Size along x, y, z relative to the mean head `[3]`."""
    shift: Array
    """mm, `[3]`."""

    def to_world(self, head_N3: ArrayLike) -> Array:
        return np.asarray((np.asarray(head_N3) * self.size) @ self.rotation.T + self.shift, dtype=np.float32)

    def to_head(self, world_N3: ArrayLike) -> Array:
        return np.asarray(((np.asarray(world_N3) - self.shift) @ self.rotation) / self.size, dtype=np.float32)


class Canvas:
    """Head coordinates of every voxel, and the values painted so far.

    Args:
        axes: the voxel centres along each axis, world mm.
        pose: where the head lies.
        warps: three fields that bend the head, in mm.
    """

    def __init__(self, axes: tuple[Array, Array, Array], pose: Pose, warps: Sequence[SmoothField], warp_mm: float) -> None:
        self.axes, self.pose, self._warps, self._warp_mm = axes, pose, warps, warp_mm
        self.spacing = np.array([float(a[1] - a[0]) for a in axes])
        self.h = np.float32(np.prod(self.spacing) ** (1 / 3))
        self.shape: Triple = cast(Triple, tuple(len(a) for a in axes))
        a, b, c = (axis - s for axis, s in zip(axes, pose.shift, strict=True))
        coordinates = []
        for i in range(3):
            weights = pose.rotation[:, i] / pose.size[i]
            flat = (weights[0] * a)[:, None, None] + (weights[1] * b)[None, :, None] + (weights[2] * c)[None, None, :]
            coordinates.append(flat + np.float32(warp_mm) * warps[i].on_grid(axes))
        self.x, self.y, self.z = coordinates
        self.values = np.zeros(self.shape, np.float32)

    def to_world(self, head_N3: ArrayLike) -> Array:
        """World mm of points of the bent head `[N, 3]`."""
        straight = self.pose.to_world(head_N3)
        bend = np.stack([w.at(straight) for w in self._warps], axis=-1) * np.float32(self._warp_mm)
        return self.pose.to_world(np.asarray(head_N3) - bend)

    def box(self, centre: ArrayLike, reach: float) -> Box | None:
        """The voxels within `reach` mm of a point of the head, or None if there are none."""
        middle = self.pose.to_world(np.asarray(centre)[None])[0]
        reach = reach * float(self.pose.size.max()) + 2.0 + 2.5 * self._warp_mm
        ends = [np.searchsorted(a, (m - reach, m + reach)) for a, m in zip(self.axes, middle, strict=True)]
        if any(low >= high for low, high in ends):
            return None
        d, h, w = (slice(int(low), int(high)) for low, high in ends)
        return d, h, w

    def ellipsoid(self, centre: ArrayLike, radii: ArrayLike, box: Box = EVERYWHERE, *, both: bool = False) -> Array:
        """Distance to an ellipsoid (first order); `both` mirrors it to the other side."""
        (cx, cy, cz), (rx, ry, rz) = np.float32(centre), np.float32(radii)
        x = np.abs(self.x[box]) if both else self.x[box]
        u, v, w = (x - cx) / rx, (self.y[box] - cy) / ry, (self.z[box] - cz) / rz
        k0 = np.sqrt(u * u + v * v + w * w)
        u /= rx
        v /= ry
        w /= rz
        k1 = np.sqrt(u * u + v * v + w * w)
        return np.asarray(k0 * (k0 - 1) / np.maximum(k1, np.float32(1e-4)), dtype=np.float32)

    def capsule(self, a: ArrayLike, b: ArrayLike, ra: float, rb: float, box: Box = EVERYWHERE, *, both: bool = False) -> Array:
        """Distance to a rod from `a` to `b` whose radius goes from `ra` to `rb`."""
        a, b = np.float32(a), np.float32(b)
        e = b - a
        x = np.abs(self.x[box]) if both else self.x[box]
        px, py, pz = x - a[0], self.y[box] - a[1], self.z[box] - a[2]
        t = np.clip((px * e[0] + py * e[1] + pz * e[2]) / np.float32(e @ e), 0, 1)
        px -= t * e[0]
        py -= t * e[1]
        pz -= t * e[2]
        return np.asarray(np.sqrt(px * px + py * py + pz * pz) - (ra + t * (rb - ra)), dtype=np.float32)

    def inside(self, distance: Array) -> Array:
        """Share of each voxel that lies inside, 0 to 1."""
        return np.clip(np.float32(0.5) - distance / self.h, 0, 1)

    def paint(self, value: float | Array, share: Array, box: Box = EVERYWHERE) -> None:
        """Mixes `value` in by the share of each voxel that it takes."""
        here = self.values[box]
        here += share * (value - here)

    def blob(self, value: float, centre: ArrayLike, radii: ArrayLike, *, both: bool = False, clip: Array | None = None) -> None:
        """Paints an ellipsoid, or one on each side; where `clip` (a share on the whole grid) allows."""
        for sign in (1, -1) if both else (1,):
            middle = np.asarray(centre, float) * (sign, 1, 1)
            box = self.box(middle, float(np.max(radii)))
            if box is not None:
                share = self.inside(self.ellipsoid(middle, radii, box))
                self.paint(value, share if clip is None else share * clip[box], box)

    def rod(self, value: float, points: ArrayLike, radii: ArrayLike, *, both: bool = False, clip: Array | None = None) -> None:
        """Paints a chain of capsules, or one on each side."""
        chain, widths = np.asarray(points, float), np.broadcast_to(np.asarray(radii, float), (len(np.asarray(points)),))
        for sign in (1, -1) if both else (1,):
            for p, q, rp, rq in zip(chain[:-1], chain[1:], widths[:-1], widths[1:], strict=True):
                p, q = p * (sign, 1, 1), q * (sign, 1, 1)
                box = self.box((p + q) / 2, float(np.linalg.norm(q - p) / 2 + max(rp, rq)))
                if box is not None:
                    share = self.inside(self.capsule(p, q, rp, rq, box))
                    self.paint(value, share if clip is None else share * clip[box], box)


def union(a: Array, b: Array, blend: float) -> Array:
    """The two shapes together, with `blend` mm of fillet (polynomial smooth minimum)."""
    k = np.float32(blend)
    mix = np.maximum(k - np.abs(a - b), 0) / k
    return np.minimum(a, b) - mix * mix * k / 4


def common(a: Array, b: Array, blend: float) -> Array:
    """What the two shapes share, with rounded edges."""
    return -union(-a, -b, blend)
