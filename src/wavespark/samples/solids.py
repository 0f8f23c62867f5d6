"""Solids as signed distances in mm, negative inside, exact or to first order; x, y, z are arrays of
one shape."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavespark.samples.fields import Array

_TINY = np.float32(1e-4)


def ellipsoid(x: Array, y: Array, z: Array, centre: ArrayLike, radii: ArrayLike) -> Array:
    """Distance to an ellipsoid, to first order."""
    u, v, w = ((p - c) / r for p, c, r in zip((x, y, z), _array(centre), _array(radii), strict=True))
    return _to_first_order((u, v, w), _array(radii))


def ellipse(y: Array, z: Array, ry: float, rz: float) -> Array:
    """Distance to an elliptic cylinder along x."""
    return _to_first_order((y / np.float32(ry), z / np.float32(rz)), _array((ry, rz)))


def capsule(x: Array, y: Array, z: Array, a: ArrayLike, b: ArrayLike, ra: float, rb: float) -> Array:
    """Distance to a rod from `a` to `b` whose radius goes from `ra` to `rb`."""
    (ax, ay, az), (ex, ey, ez) = _array(a), _array(np.subtract(b, a))
    px, py, pz = x - ax, y - ay, z - az
    t = np.clip((px * ex + py * ey + pz * ez) / (ex * ex + ey * ey + ez * ez), 0, 1)
    px -= t * ex
    py -= t * ey
    pz -= t * ez
    px *= px
    py *= py
    pz *= pz
    return np.asarray(np.sqrt(px + py + pz) - (np.float32(ra) + t * np.float32(rb - ra)), dtype=np.float32)


def union(a: Array, b: Array, blend: float) -> Array:
    """The two solids together, with `blend` mm of fillet (polynomial smooth minimum)."""
    mix = np.maximum(np.float32(blend) - np.abs(a - b), 0)
    return np.asarray(np.minimum(a, b) - mix * mix / np.float32(4 * blend), dtype=np.float32)


def common(a: Array, b: Array, blend: float) -> Array:
    """Return the intersection of two solids, with rounded edges."""
    return -union(-a, -b, blend)


def both(*solids: NDArray[Any]) -> Array:
    """Return the intersection of all solids."""
    shared: NDArray[Any] = solids[0]
    for solid in solids[1:]:
        shared = np.maximum(shared, solid)
    return np.asarray(shared, dtype=np.float32)


def without(a: Array, b: Array) -> Array:
    """The first solid less the second."""
    return np.maximum(a, -b)


def _to_first_order(scaled: tuple[Array, ...], radii: Array) -> Array:
    k0 = np.sqrt(sum(s * s for s in scaled))
    k1 = np.sqrt(sum((s / r) ** 2 for s, r in zip(scaled, radii, strict=True)))
    return np.asarray(k0 * (k0 - 1) / np.maximum(k1, _TINY), dtype=np.float32)


def _array(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float32)
