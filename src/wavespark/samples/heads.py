"""Synthetic head angiography: an invented head, its vessels, and an aneurysm if asked for, as a
scanner shows them.

For tests, the quickstart and a benchmark of transfer. It is a *synthetic vessel task*: results on
it say nothing about finding aneurysms in patients. Overall statistics of a head (moments,
percentiles, histogram) do not tell whether it has an
aneurysm: a logistic regression on them, 600 heads a contrast, reaches an area under the curve of
0.44 to 0.53.
"""

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from wavespark.errors import SettingsError
from wavespark.randomness import stream
from wavespark.rsna_labels import LABELS
from wavespark.samples.aneurysms import Aneurysm, grow_sac, random_aneurysm
from wavespark.samples.angiography import TIP, VascularTree, vascular_tree
from wavespark.samples.brain_tissue import Folds, paint_brain
from wavespark.samples.canvas import Axes, Canvas, Pose
from wavespark.samples.fields import Array, SmoothField
from wavespark.samples.scanner import average, scan
from wavespark.samples.skull import cavity, paint_skull
from wavespark.samples.tissues import CONTRASTS, Contrast, palette
from wavespark.samples.tubes import draw_balls, draw_tubes
from wavespark.shapes import Triple

CENTRE_MM = (0.0, -12.0, -4.0)
"""The middle of the field of view, in the mean head's frame (MNI152-like)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SyntheticHead:
    """One head as it was scanned, and the truth about it. Array axes D, H, W follow R, A, S."""

    voxels: Array
    """Float32 `[D, H, W]`, whole numbers: HU for CTA, arbitrary units from 0 for MR."""
    affine: NDArray[np.float64]
    """`[4, 4]`, voxel index -> RAS mm."""
    vessels: NDArray[np.uint8]
    """`[D, H, W]`: 0 elsewhere, 1 artery (with the sac), 2 vein."""
    aneurysm: NDArray[np.bool_]
    """`[D, H, W]`: the sac."""
    labels: dict[str, int]
    """0 or 1 for each of `LABELS`, in that order."""
    sac: tuple[tuple[float, float, float], float] | None
    """Centre (RAS mm) and diameter (mm) of the sac."""
    modality: Literal["CT", "MR"]
    contrast: Contrast
    seed: int

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Mm per voxel along each axis."""
        a, b, c = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return a, b, c


@dataclass(frozen=True, slots=True)
class _Traits:
    """Traits that differ between heads and scans, apart from the vessels."""

    pose: Pose
    warp_mm: float
    thickness: float
    atrophy: float
    ventricles: float
    artery: float
    vein: float
    blur_mm: float
    noise: float
    bias: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "_Traits":
        tilt, nod, turn = rng.normal(0, (2.0, 4.0, 2.5)) * np.pi / 180
        size = 1 + rng.normal(0, 0.02) + rng.normal(0, 0.015, 3)
        return cls(
            pose=Pose(_rotation(nod, tilt, turn), size.astype(np.float32), rng.normal(0, 2.5, 3).astype(np.float32)),
            warp_mm=1.3,
            thickness=float(np.clip(rng.normal(6.3, 0.8), 4.5, 8.5)),
            atrophy=float(np.clip(rng.gamma(2.0, 0.2), 0, 1.5)),
            ventricles=float(np.exp(rng.normal(0, 0.2))),
            artery=float(rng.uniform(0.86, 1.15)),
            vein=float(rng.uniform(0.75, 1.15)),
            blur_mm=float(rng.uniform(0.35, 0.6)),
            noise=float(rng.uniform(0.8, 1.3)),
            bias=float(rng.uniform(0.05, 0.14)),
        )


def synthetic_head(
    seed: int,
    contrast: Contrast = "CTA",
    *,
    shape: Triple = (128, 128, 128),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    aneurysm: Aneurysm | Literal["random"] | None = None,
) -> SyntheticHead:
    """A head from its seed; the same anatomy in every contrast, shape and spacing.

    The sac has its own stream of chance, so that a head with it and the head without it differ only
    around it. The labels say what the head has, also where a small field of view leaves it out.

    >>> head = synthetic_head(7, "TOF-MRA", shape=(48, 48, 32), spacing=(2.0, 2.0, 2.5))
    >>> head.voxels.shape, head.modality, head.labels["Aneurysm Present"]
    ((48, 48, 32), 'MR', 0)

    Args:
        seed: decides everything; the scan's noise as well.
        contrast: `"CTA"`, `"TOF-MRA"`, `"T1"` (after gadolinium) or `"T2"`.
        shape: voxels along R, A, S, centred on the brain; a whole head takes about 180 x 230 x 210
            mm.
        spacing: mm per voxel along R, A, S. From 2.5 mm a voxel is averaged over its thickness, as
            a thick slice is.
        aneurysm: None, one that the seed chooses, or a given one.

    Raises:
        SettingsError: if the contrast or the aneurysm is unknown, or shape or spacing are not
            positive.
    """
    if contrast not in CONTRASTS:
        raise SettingsError(f"no contrast is called {contrast!r}. Use one of: {', '.join(CONTRASTS)}")
    if min(shape) < 2 or not min(spacing) > 0:
        raise SettingsError(
            f"a head needs at least 2 voxels along each axis and a positive spacing, got {shape} at {spacing} mm"
        )
    if not (aneurysm is None or aneurysm == "random" or isinstance(aneurysm, Aneurysm)):
        raise SettingsError(f"aneurysm must be None, 'random' or an Aneurysm, got {aneurysm!r}")
    traits = _Traits.draw(stream(seed, purpose="samples.traits"))
    origin = np.asarray(CENTRE_MM) - (np.array(shape) - 1) / 2 * np.array(spacing)
    fine = tuple(max(1, int(s / 1.25)) for s in spacing)
    axes = tuple(
        (o + s * ((np.arange(n * k) + 0.5) / k - 0.5)).astype(np.float32)
        for o, s, n, k in zip(origin, spacing, shape, fine, strict=True)
    )
    canvas = Canvas(cast(Axes, axes), traits.pose, [_field(seed, f"warp {i}", 32.0) for i in "xyz"], traits.warp_mm)
    colours = palette(contrast)
    colours["artery"] *= traits.artery
    colours["vein"] *= traits.vein
    _paint_anatomy(canvas, seed, colours, traits, contrast)
    tree = vascular_tree(seed)
    vessels = _paint_vessels(canvas, tree, colours)
    chosen = random_aneurysm(seed) if aneurysm == "random" else aneurysm
    sac, bulge = None, np.zeros(canvas.shape, np.float32)
    if chosen is not None:
        sac = _paint_sac(canvas, seed, chosen, tree, colours, bulge)
    _paint_calcium(canvas, seed, tree, colours)

    sharp = gaussian_filter(canvas.values, traits.blur_mm / canvas.spacing, truncate=3.0)
    signal = average(sharp, fine)
    veins, arteries, lumps = (average(a, fine) > 0.5 for a in (vessels[1], vessels[0], bulge))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    on = {chosen.location, LABELS[-1]} if chosen else set()
    return SyntheticHead(
        voxels=scan(signal, seed, contrast, spacing, noise=traits.noise, bias=traits.bias),
        affine=affine,
        vessels=np.where(arteries | lumps, 1, np.where(veins, 2, 0)).astype(np.uint8),
        aneurysm=lumps & ~arteries,
        labels={label: int(label in on) for label in LABELS},
        sac=sac,
        modality="CT" if contrast == "CTA" else "MR",
        contrast=contrast,
        seed=seed,
    )


def _paint_anatomy(canvas: Canvas, seed: int, colours: dict[str, float], traits: _Traits, contrast: Contrast) -> None:
    inside = cavity(canvas)
    paint_skull(
        canvas,
        colours,
        inside,
        thickness=traits.thickness,
        lumps=_field(seed, "bone", 12.0),
        cells=_field(seed, "cells", 4.0),
    )
    paint_brain(
        canvas,
        colours,
        inside,
        folds=Folds.draw(stream(seed, purpose="samples.folds")),
        depth=_field(seed, "depth", 14.0),
        atrophy=traits.atrophy,
        ventricles=traits.ventricles,
    )
    texture = _field(seed, "texture", 5.0).on_grid(canvas.axes)
    if contrast == "CTA":
        canvas.values += texture * np.where(canvas.values > -300, np.float32(1.5), np.float32(0))
        canvas.values *= np.where(canvas.values > 250, 1 + np.float32(0.1) * texture, 1)
    else:
        canvas.values *= 1 + np.float32(0.03) * texture


def _paint_vessels(canvas: Canvas, tree: VascularTree, colours: dict[str, float]) -> tuple[Array, Array]:
    cores = []
    for kind in ("vein", "artery"):
        lines = [v for v in tree.vessels if v.kind == kind]
        points = canvas.to_world(np.concatenate([v.points for v in lines]) + TIP)
        first = np.cumsum([0, *(len(v.points) for v in lines)])
        start = np.delete(np.arange(len(points)), first[1:] - 1)  # a line's last point starts no piece
        radius = np.concatenate([v.radii[:-1] for v in lines]).astype(np.float32) * np.float32(canvas.pose.size.mean())
        tubes = draw_tubes(canvas, points[start], points[start + 1], radius)
        canvas.paint(colours[kind], tubes.share)
        cores.append(tubes.core)
    return cores[1], cores[0]


def _paint_sac(
    canvas: Canvas, seed: int, aneurysm: Aneurysm, tree: VascularTree, colours: dict[str, float], bulge: Array
) -> tuple[tuple[float, float, float], float]:
    sac = grow_sac(seed, aneurysm, tree)
    centre = canvas.to_world((sac.centre + TIP)[None])[0]
    centres = np.stack([centre, centre + (sac.lobe_centre - sac.centre)])[: 2 if sac.lobe_radius else 1]
    radii = np.stack([sac.radii, np.full(3, sac.lobe_radius)])[: len(centres)]
    box, share = draw_balls(canvas, centres, radii)
    if box is not None:
        canvas.paint(colours["artery"] * sac.brightness, share, box)
        bulge[box] = share
    x, y, z = centre.tolist()
    return (x, y, z), aneurysm.diameter_mm


def _paint_calcium(canvas: Canvas, seed: int, tree: VascularTree, colours: dict[str, float]) -> None:
    """Calcified walls, pineal gland and choroid plexus, in heads with and without an aneurysm."""
    rng = stream(seed, purpose="samples.calcium")
    spots = [(np.array((s * 23.0, -41.0, 12.0)) + rng.normal(0, 1.5, 3), rng.uniform(0.8, 3.0)) for s in (-1, 1)]
    spots.append((np.array((0.0, -38.0, 0.0)), rng.uniform(0.8, 2.5)))
    for _ in range(rng.poisson(4)):
        name = rng.choice(("infraclinoid carotid", "supraclinoid carotid", "vertebral", "M1"))
        point, tangent, own = tree[f"{rng.choice(('Left', 'Right'))} {name}"].at(rng.uniform())
        across = np.cross(tangent, rng.normal(0, 1, 3))
        spots.append((point + TIP + across / np.linalg.norm(across) * own, rng.uniform(0.5, 1.6)))
    for centre, radius in spots:
        canvas.blob(colours["calcium"], centre, radius * np.exp(rng.normal(0, 0.25, 3)))


def _field(seed: int, purpose: str, step: float) -> SmoothField:
    return SmoothField.draw(stream(seed, purpose=f"samples.{purpose}"), step)


def _rotation(about_x: float, about_y: float, about_z: float) -> Array:
    (cx, cy, cz), (sx, sy, sz) = np.cos((about_x, about_y, about_z)), np.sin((about_x, about_y, about_z))
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return (rz @ ry @ rx).astype(np.float32)
