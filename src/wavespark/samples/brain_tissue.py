"""The brain and its fluid, painted into the cavity of the skull.

Coordinates are MNI152-like, mm.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from wavespark.samples.canvas import Canvas
from wavespark.samples.fields import Array, SmoothField
from wavespark.samples.solids import both, ellipse, ellipsoid, without

_FOLD_STEP, _FOLD_COUNT = 2.5, 72


@dataclass(frozen=True, slots=True)
class Folds:
    """Distance to the nearest sulcus on a sphere of 72 mm radius: the zero level of band-limited
    noise."""

    distance: Array
    """`[K, K, K]`, mm, signed."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Folds":
        white = rng.standard_normal((_FOLD_COUNT,) * 3, dtype=np.float32)
        noise = gaussian_filter(white, 1.3) - gaussian_filter(white, 2.1)
        steep = np.sqrt(sum(s * s for s in np.gradient(noise, _FOLD_STEP)))
        return cls((noise / np.maximum(steep, 0.7 * steep.mean())).astype(np.float32))

    def at(self, x: Array, y: Array, z: Array) -> Array:
        """The folds run inwards along the radii, wandering a little; distances shrink towards the
        centre."""
        u, v, w = x / 69, (y + 17) / 88, (z - 10) / 66
        level = np.sqrt(u * u + v * v + w * w) + np.float32(1e-3)
        scale = (44 / level + 28) / np.float32(_FOLD_STEP)
        where = np.stack([u * scale, v * scale, w * scale]) + np.float32((_FOLD_COUNT - 1) / 2)
        return np.asarray(map_coordinates(self.distance, where, order=1, mode="nearest") * level, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Sites:
    """The voxels near the cavity, as flat arrays."""

    index: NDArray[np.intp]
    x: Array
    y: Array
    z: Array
    ax: Array
    cavity: Array
    wavy: Array

    def take(self, which: NDArray[np.intp]) -> "_Sites":
        return _Sites(*(getattr(self, name)[which] for name in ("index", "x", "y", "z", "ax", "cavity", "wavy")))


def paint_brain(
    canvas: Canvas,
    colours: Mapping[str, float],
    inside: Array,
    *,
    folds: Folds,
    depth: SmoothField,
    atrophy: float,
    ventricles: float,
) -> None:
    """Paints fluid, cerebrum, cerebellum, brain stem, ventricles, falx and tentorium.

    Args:
        inside: distance to the cavity, from `skull.cavity`.
        folds: where the sulci run.
        depth: modulates how deep they go.
        atrophy: extra width of the fluid spaces, mm.
        ventricles: size of the ventricles relative to the mean.
    """
    room = canvas.inside(inside)
    canvas.paint(colours["csf"], room)
    index = np.flatnonzero(inside < canvas.h)
    x, y, z, near, wavy = (a.ravel()[index] for a in (canvas.x, canvas.y, canvas.z, inside, depth.on_grid(canvas.axes)))
    sites = _Sites(index, x, y, z, np.abs(x), near, wavy)
    tent = _tentorium(sites)
    _cerebrum(canvas, colours, sites, tent, folds, atrophy)
    behind = np.flatnonzero(tent < 2)
    _cerebellum(canvas, colours, sites.take(behind), tent[behind])
    _nuclei(canvas, colours, room)
    _stem(canvas, colours, room)
    _ventricles(canvas, colours, room, ventricles)


def _mix(canvas: Canvas, sites: _Sites, value: float, distance: Array, strength: float = 1.0) -> None:
    flat = canvas.values.reshape(-1)
    here = flat[sites.index]
    flat[sites.index] = here + np.float32(strength) * canvas.inside(distance) * (np.float32(value) - here)


def _tentorium(s: _Sites) -> Array:
    """Distance to the compartment under the tentorium: below a tent, behind the petrous ridges."""
    below = s.z - 2 + 0.48 * s.ax - 0.3 * np.minimum(s.y + 55, 0)
    return np.maximum(below * np.float32(0.9), (s.y + 8 + 0.5 * s.ax) * np.float32(0.88))


def _cerebrum(
    canvas: Canvas, colours: Mapping[str, float], s: _Sites, tent: Array, folds: Folds, atrophy: float
) -> None:
    x, y, z, ax, wavy = s.x, s.y, s.z, s.ax, s.wavy
    gap = atrophy / 2
    callosal = ellipse(y + 12, z - 4, 44, 26)  # the corpus callosum bounds the cleft between the hemispheres
    cerebrum = both(s.cavity + (1.4 + atrophy), 1.5 - tent, -both(np.abs(x + 0.7 * wavy) - (0.6 + gap), -callosal))
    for centre, radii in (((0, -27, -14), (21, 17, 18)), ((0, -4, -19), (15, 14, 9))):  # ambient, suprasellar cistern
        cerebrum = without(cerebrum, ellipsoid(x, y, z, centre, radii))
    depth = -cerebrum
    level = -5 - 0.33 * y + 2 * wavy
    cerebrum = without(cerebrum, both(np.abs(z - level) - (0.8 + gap), 34 - ax, y - 20, -42 - y))  # Sylvian fissure
    insula = both(np.abs(ax - 39 - 1.5 * wavy) - (0.7 + gap), np.abs(z - level - 3) - 11, np.abs(y + 3) - 19)
    cerebrum = without(cerebrum, insula)

    sulcus = np.full_like(cerebrum, 99)
    shallow = np.flatnonzero((cerebrum < canvas.h) & (depth < 24))
    deep, sway = depth[shallow], wavy[shallow]
    sheet = np.abs(folds.at(x[shallow] + 3 * sway, y[shallow] - 3 * sway, z[shallow] + 3 * sway))
    sulcus[shallow] = np.maximum(
        sheet - (0.3 + gap) + np.maximum(deep - 3, 0) * np.float32(0.025), deep - 13 - 3 * sway
    )
    pial = without(cerebrum, sulcus)
    _mix(canvas, s, colours["grey"], pial)
    _mix(canvas, s, colours["white"], pial + 2.5)
    _mix(canvas, s, colours["white"], both(np.abs(ellipse(y + 12, z - 4, 40, 22)) - 3.2, ax - 17, -1.5 - z))  # callosum
    _mix(canvas, s, colours["dura"], both(ax - 0.7, 8 - callosal, s.cavity + 0.3, -4 - z), 0.8)  # falx
    _mix(canvas, s, colours["dura"], both(np.abs(tent) - 0.6, 17 - ax + np.minimum(48 + y, 0), s.cavity), 0.8)


def _cerebellum(canvas: Canvas, colours: Mapping[str, float], s: _Sites, tent: Array) -> None:
    front = s.y + 38 - 0.12 * s.ax
    notch = np.maximum(s.ax - 1.5 - 0.12 * np.maximum(-75 - s.y, 0), s.y + 78)
    cerebellum = without(both(s.cavity + 2.2, tent + 1.8, front, -60 - s.z - 0.05 * s.y), notch)
    arm = np.hypot(s.y + 38, 0.62 * s.x)
    angle = np.arctan2(s.z + 30, arm) * 17 + 1.2 * s.wavy  # leaves fan out from the fourth ventricle
    leaf = np.abs(np.mod(angle, 3.6) - np.float32(1.8)) * np.hypot(arm, s.z + 30) / 34
    folia = both(leaf - 0.4, -11 - cerebellum)
    _mix(canvas, s, colours["grey"], without(cerebellum, folia))
    _mix(canvas, s, colours["white"], both(cerebellum + 6, 0.9 - leaf))


def _nuclei(canvas: Canvas, colours: Mapping[str, float], room: Array) -> None:
    for centre, radii in (
        ((26, 1, 1), (6, 16, 10)),  # putamen and pallidum
        ((14, 12, 9), (5.5, 11, 9)),  # head of the caudate
        ((11, -19, 7), (9, 14, 8)),  # thalamus
    ):
        canvas.blob(colours["deep"], centre, radii, both=True, clip=room)
    canvas.blob(colours["grey"], (0, -38, 0), (3, 5, 3), clip=room)  # pineal


def _stem(canvas: Canvas, colours: Mapping[str, float], room: Array) -> None:
    stem = colours["stem"]
    canvas.blob(colours["white"], (20, -58, -36), (12, 12, 8), both=True, clip=room)
    canvas.rod(stem, ((8, -34, -32), (20, -50, -34)), (8, 7), both=True, clip=room)  # middle peduncles
    canvas.blob(stem, (0, -29, -32), (17, 12.5, 14), clip=room)  # pons
    canvas.blob(stem, (8, -24, -11), (8, 10, 13), both=True, clip=room)  # cerebral peduncles
    canvas.blob(stem, (0, -30, -10), (12, 9, 12), clip=room)  # midbrain
    canvas.rod(stem, ((0, -36, -42), (0, -41, -66), (0, -46, -170)), (9, 6.5, 5.5), clip=room)  # medulla and cord


def _ventricles(canvas: Canvas, colours: Mapping[str, float], room: Array, size: float) -> None:
    fluid = colours["csf"]
    horn = np.array((3.2, 6.0, 5.2, 7.2, 5.8, 2.2)) * size
    body = ((10, 27, 3), (8.5, 16, 14), (9, -10, 20), (22, -38, 15), (24, -50, 10), (25, -64, 4))
    canvas.rod(fluid, body, horn, both=True, clip=room * (np.abs(canvas.x) > 1.2))
    canvas.rod(
        fluid, ((22, -38, 13), (31, -30, -8), (31, -12, -18)), np.array((4.5, 2.5, 1.8)) * size, both=True, clip=room
    )
    canvas.blob(fluid, (0, -14, -1), (2.0 * size + 0.6, 13, 10), clip=room)  # third
    canvas.rod(fluid, ((0, -34, -5), (0, -41, -24)), (0.8, 1.2), clip=room)  # aqueduct
    canvas.blob(fluid, (0, -45, -34), (6, 4, 9), clip=room)  # fourth
