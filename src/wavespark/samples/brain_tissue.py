"""The brain and its fluid, painted into the cavity of the skull. Coordinates are MNI152-like, mm."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from wavespark.samples.canvas import Canvas
from wavespark.samples.fields import Array, SmoothField

_SULCUS_STEP = 2.5
_SULCUS_COUNT = 72


@dataclass(frozen=True, slots=True)
class Folds:
    """Distance to the nearest sulcus on a sphere of 75 mm radius: level sets of band-limited noise."""

    distance: Array
    """`[K, K, K]`, mm, signed."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Folds":
        white = rng.standard_normal((_SULCUS_COUNT,) * 3, dtype=np.float32)
        noise = gaussian_filter(white, 2.1) - gaussian_filter(white, 3.4)
        slopes = np.gradient(noise, _SULCUS_STEP)
        steep = np.sqrt(sum(s * s for s in slopes))
        return cls((noise / np.maximum(steep, 0.7 * steep.mean())).astype(np.float32))

    def at(self, x: Array, y: Array, z: Array) -> Array:
        """The folds run inwards along the radii, wandering a little; distances shrink towards the centre."""
        u, v, w = x / 69, (y + 17) / 88, (z - 10) / 66
        level = np.sqrt(u * u + v * v + w * w) + np.float32(1e-3)
        scale = 62 / level + 10
        where = np.stack([u * scale, v * scale, w * scale]) / np.float32(_SULCUS_STEP) + np.float32((_SULCUS_COUNT - 1) / 2)
        return np.asarray(map_coordinates(self.distance, where, order=1, mode="nearest") * level, dtype=np.float32)


def paint_brain(canvas: Canvas, p: dict[str, float], inside: Array, *, folds: Folds, depth: SmoothField, atrophy: float, ventricles: float) -> None:
    """Paints fluid, cerebrum, cerebellum, brain stem, ventricles, falx and tentorium.

    Args:
        inside: distance to the cavity, from `skull.cavity`.
        folds: where the sulci run.
        depth: modulates how deep they go.
        atrophy: extra width of the fluid spaces, mm.
        ventricles: size of the ventricles relative to the mean.
    """
    canvas.paint(p["csf"], canvas.inside(inside))
    index = np.flatnonzero(inside < canvas.h)
    wavy = depth.on_grid(canvas.axes).ravel()[index]
    x, y, z, cav = (a.ravel()[index] for a in (canvas.x, canvas.y, canvas.z, inside))
    ax = np.abs(x)
    v = canvas.values.ravel()[index]

    def paint(tissue: str, distance: Array, strength: float = 1.0) -> None:
        share = canvas.inside(distance) * np.float32(strength)
        v[:] += share * (p[tissue] - v)

    tent = np.maximum((z - (2 - 0.48 * ax + 0.3 * np.minimum(y + 55, 0))) * np.float32(0.9), (y + 8 + 0.5 * ax) * np.float32(0.88))
    callosal = _ellipse(y + 12, z - 4, 44, 26)
    fissure = np.maximum(np.abs(x + wavy) - (0.7 + atrophy / 2), -callosal)
    cerebrum = np.maximum(np.maximum(cav + (1.6 + atrophy), 1.5 - tent), -fissure)
    for centre, radii in (((0, -27, -14), (21, 17, 18)), ((0, -4, -19), (15, 14, 9))):  # ambient and suprasellar cisterns
        cerebrum = np.maximum(cerebrum, -_ellipsoid(x, y, z, centre, radii))
    sylvian = -5 - 0.33 * y + wavy
    cleft = np.maximum(np.maximum(np.abs(z - sylvian) - (0.9 + atrophy / 2), 34 - ax), np.maximum(y - 20, -42 - y))
    insula = np.maximum(np.abs(ax - 39 - wavy) - (0.8 + atrophy / 2), np.maximum(np.abs(z - sylvian - 3) - 11, np.abs(y + 3) - 19))
    cerebrum = np.maximum(cerebrum, -np.minimum(cleft, insula))

    shallow = (cerebrum < canvas.h) & (cerebrum > -26)
    sulcus = np.full_like(cerebrum, 99)
    here = np.flatnonzero(shallow)
    sheet = np.abs(folds.at(x[here], y[here], z[here]))
    reach = 13 + 4 * wavy[here]
    sulcus[here] = np.maximum(sheet - (0.35 + atrophy / 2) + np.maximum(-cerebrum[here] - 3, 0) * np.float32(0.03), -cerebrum[here] - reach)
    pial = np.maximum(cerebrum, -sulcus)
    paint("grey", pial)
    paint("white", pial + 2.6)
    paint("dura", np.maximum(np.abs(x) - 0.7, np.maximum(8 - callosal, np.maximum(cav + 0.3, -4 - z))), 0.8)
    _deep(paint, x, y, z, ax, ventricles)
    _hindbrain(paint, x, y, z, ax, cav, tent, wavy)
    paint("dura", np.maximum(np.abs(tent) - 0.6, np.maximum(17 - ax + np.maximum(-48 - y, 0), cav)), 0.8)
    canvas.values.ravel()[index] = v


def _deep(paint, x: Array, y: Array, z: Array, ax: Array, ventricles: float) -> None:  # type: ignore[no-untyped-def]
    ring = np.abs(_ellipse(y + 12, z - 4, 40, 22)) - 3.2
    paint("white", np.maximum(ring, np.maximum(ax - 17, np.maximum(-3 - z, 0.5 - z * 0 + (-1.5)))))
    paint("deep", _ellipsoid(ax, y, z, (26, 1, 1), (6, 16, 10)))  # putamen and pallidum
    paint("deep", _ellipsoid(ax, y, z, (14, 12, 9), (5.5, 11, 9)))  # head of the caudate
    paint("deep", _ellipsoid(ax, y, z, (11, -19, 7), (9, 14, 8)))  # thalamus
    s = ventricles
    lateral = np.minimum(_rod(ax, y, z, (10, 27, 3), (8, 16, 14), 3.2 * s, 5.0 * s), _rod(ax, y, z, (8, 16, 14), (9, -10, 20), 5.0 * s, 4.2 * s))
    lateral = np.minimum(lateral, _rod(ax, y, z, (9, -10, 20), (22, -38, 15), 4.2 * s, 6.0 * s))
    lateral = np.minimum(lateral, _rod(ax, y, z, (22, -38, 15), (25, -62, 5), 5.5 * s, 2.0 * s))
    lateral = np.minimum(lateral, _rod(ax, y, z, (22, -38, 13), (31, -30, -8), 4.5 * s, 2.5 * s))
    lateral = np.minimum(lateral, _rod(ax, y, z, (31, -30, -8), (31, -12, -18), 2.5 * s, 1.8 * s))
    paint("csf", np.maximum(lateral, 1.0 - ax))
    paint("csf", _ellipsoid(x, y, z, (0, -14, -1), (2.0 * s + 0.6, 13, 10)))  # third ventricle


def _hindbrain(paint, x: Array, y: Array, z: Array, ax: Array, cav: Array, tent: Array, wavy: Array) -> None:  # type: ignore[no-untyped-def]
    cerebellum = np.maximum(np.maximum(cav + 2.2, tent + 1.8), np.maximum(y + 38 - 0.12 * ax, -60 - z - 0.05 * y))
    notch = np.maximum(ax - 1.5 - 0.12 * np.maximum(-75 - y, 0), y + 78)
    cerebellum = np.maximum(cerebellum, -notch)
    angle = np.arctan2(z + 30, np.hypot(y + 38, 0.62 * x)) * 17 + wavy * np.float32(1.2)
    sheet = np.abs(np.mod(angle, np.float32(3.6)) - np.float32(1.8))
    radius = np.sqrt((y + 38) ** 2 + (0.62 * x) ** 2 + (z + 30) ** 2)
    folia = np.maximum((sheet - 0.42) * radius / 34, -cerebellum - 11)
    pial = np.maximum(cerebellum, -folia)
    paint("grey", pial)
    paint("white", np.maximum(cerebellum + 6, 0.9 - sheet * radius / 34))
    paint("white", _ellipsoid(ax, y, z, (20, -58, -36), (12, 12, 8)))
    paint("stem", _rod(ax, y, z, (8, -34, -32), (20, -50, -34), 8, 7))  # middle cerebellar peduncles
    paint("stem", _ellipsoid(x, y, z, (0, -29, -32), (17, 12.5, 14)))  # pons
    paint("stem", np.maximum(_ellipsoid(x, y, z, (0, -27, -11), (16, 12, 13)), -_ellipsoid(x, y, z, (0, -13, -13), (4, 5, 14))))  # midbrain
    paint("stem", _rod(x, y, z, (0, -36, -42), (0, -41, -66), 9, 6.5))  # medulla
    paint("stem", _rod(x, y, z, (0, -41, -66), (0, -46, -170), 6.5, 5.5))  # spinal cord
    paint("csf", _ellipsoid(x, y, z, (0, -45, -34), (6, 4, 9)))  # fourth ventricle
    paint("csf", _rod(x, y, z, (0, -34, -5), (0, -41, -24), 0.8, 1.2))  # aqueduct
    paint("grey", _ellipsoid(x, y, z, (0, -38, 0), (3, 5, 3)))  # pineal


def _ellipse(y: Array, z: Array, ry: float, rz: float) -> Array:
    k0 = np.sqrt((y / ry) ** 2 + (z / rz) ** 2)
    k1 = np.sqrt((y / ry**2) ** 2 + (z / rz**2) ** 2)
    return np.asarray(k0 * (k0 - 1) / np.maximum(k1, 1e-4), dtype=np.float32)


def _ellipsoid(x: Array, y: Array, z: Array, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Array:
    u, v, w = ((c - m) / r for c, m, r in zip((x, y, z), centre, radii, strict=True))
    k0 = np.sqrt(u * u + v * v + w * w)
    k1 = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2)
    return np.asarray(k0 * (k0 - 1) / np.maximum(k1, 1e-4), dtype=np.float32)


def _rod(x: Array, y: Array, z: Array, a: tuple[float, float, float], b: tuple[float, float, float], ra: float, rb: float) -> Array:
    ex, ey, ez = (q - p for p, q in zip(a, b, strict=True))
    px, py, pz = x - a[0], y - a[1], z - a[2]
    t = np.clip((px * ex + py * ey + pz * ez) / (ex * ex + ey * ey + ez * ez), 0, 1)
    return np.asarray(np.sqrt((px - t * ex) ** 2 + (py - t * ey) ** 2 + (pz - t * ez) ** 2) - (ra + t * (rb - ra)), dtype=np.float32)
