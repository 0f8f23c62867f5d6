"""A grid to paint a head on: solids have soft edges, so that every voxel holds its partial
volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from wavespark.samples import solids
from wavespark.samples.fields import Array, SmoothField
from wavespark.shapes import Triple

Axes = tuple[Array, Array, Array]
Box = tuple[slice, slice, slice]
EVERYWHERE: Box = (slice(None), slice(None), slice(None))
_MIRROR = np.array((-1, 1, 1))


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
        """World mm of points of the head `[N, 3]`."""
        return np.asarray((np.asarray(head_N3) * self.size) @ self.rotation.T + self.shift, dtype=np.float32)


class Canvas:
    """Head coordinates of every voxel, and the values painted so far.

    Args:
        axes: the voxel centres along each axis, world mm.
        pose: where the head lies.
        warps: three fields that bend the head by `warp_mm` mm (standard deviation).
    """

    def __init__(self, axes: Axes, pose: Pose, warps: Sequence[SmoothField], warp_mm: float) -> None:
        self.axes, self.pose, self._warps, self._warp_mm = axes, pose, warps, np.float32(warp_mm)
        self.spacing = np.array([float(a[1] - a[0]) for a in axes])
        self.h = np.float32(np.prod(self.spacing) ** (1 / 3))
        self.shape = cast(Triple, tuple(len(a) for a in axes))
        self.values = np.zeros(self.shape, np.float32)
        a, b, c = (axis - s for axis, s in zip(axes, pose.shift, strict=True))
        self.x, self.y, self.z = (
            (r[0] * a)[:, None, None] + (r[1] * b)[:, None] + r[2] * c + self._warp_mm * warp.on_grid(axes)
            for r, warp in zip((pose.rotation / pose.size).T, warps, strict=True)
        )

    def to_world(self, head_N3: ArrayLike) -> Array:
        """World mm of points of the bent head `[N, 3]`."""
        straight = self.pose.to_world(head_N3)
        bend = np.stack([w.at(straight) for w in self._warps], axis=-1) * self._warp_mm
        return self.pose.to_world(np.asarray(head_N3) - bend)

    def box(self, centre: ArrayLike, reach: float) -> Box | None:
        """The voxels within `reach` mm of a point of the head, or None if there are none."""
        middle = self.pose.to_world(np.asarray(centre)[None])[0]
        reach = reach * float(self.pose.size.max()) + 2 * float(self.h) + 3 * float(self._warp_mm)
        return self.between(middle - reach, middle + reach)

    def between(self, low: Array, high: Array) -> Box | None:
        """The voxels between two world points, or None if there are none."""
        ends = [np.searchsorted(a, (m, n)) for a, m, n in zip(self.axes, low, high, strict=True)]
        if any(m >= n for m, n in ends):
            return None
        d, h, w = (slice(int(m), int(n)) for m, n in ends)
        return d, h, w

    def ellipsoid(self, centre: ArrayLike, radii: ArrayLike, box: Box = EVERYWHERE) -> Array:
        """Distance to an ellipsoid."""
        return solids.ellipsoid(self.x[box], self.y[box], self.z[box], centre, radii)

    def capsule(self, a: ArrayLike, b: ArrayLike, ra: float, rb: float, box: Box = EVERYWHERE) -> Array:
        """Distance to a rod from `a` to `b`."""
        return solids.capsule(self.x[box], self.y[box], self.z[box], a, b, ra, rb)

    def inside(self, distance: Array) -> Array:
        """Share of each voxel that lies inside, 0 to 1."""
        return np.clip(np.float32(0.5) - distance / self.h, 0, 1)

    def paint(self, value: float, share: Array, box: Box = EVERYWHERE) -> None:
        """Mixes `value` in by the share of each voxel that it takes."""
        here = self.values[box]
        here += share * (np.float32(value) - here)

    def blob(
        self, value: float, centre: ArrayLike, radii: ArrayLike, *, both: bool = False, clip: Array | None = None
    ) -> None:
        """Paints an ellipsoid, or one on each side; only where `clip`, a share on the whole grid,
        allows."""
        for mirror in (1, _MIRROR) if both else (1,):
            middle = np.asarray(centre) * mirror
            box = self.box(middle, float(np.max(radii)))
            if box is not None:
                share = self.inside(self.ellipsoid(middle, radii, box))
                self.paint(value, share if clip is None else share * clip[box], box)

    def rod(
        self, value: float, points: ArrayLike, radii: ArrayLike, *, both: bool = False, clip: Array | None = None
    ) -> None:
        """Paints a chain of capsules, or one on each side."""
        chain = np.asarray(points, float)
        widths = np.broadcast_to(np.asarray(radii, float), len(chain)).tolist()
        for mirror in (1, _MIRROR) if both else (1,):
            for (p, q), (rp, rq) in zip(pairwise(chain * mirror), pairwise(widths), strict=True):
                box = self.around(p, q, max(rp, rq))
                if box is not None:
                    share = self.inside(self.capsule(p, q, rp, rq, box))
                    self.paint(value, share if clip is None else share * clip[box], box)

    def around(self, a: ArrayLike, b: ArrayLike, radius: float) -> Box | None:
        """The voxels that a rod may touch."""
        return self.box((np.asarray(a) + np.asarray(b)) / 2, float(np.linalg.norm(np.subtract(b, a))) / 2 + radius)
