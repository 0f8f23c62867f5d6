"""Augmentation of windows.

Every change alters the image; where things move, label maps and points move along.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from wavespark.sampling.appearance import with_bias_field, with_gamma, with_noise, with_thick_slices
from wavespark.sampling.augmentation import STRONG, Augmentation
from wavespark.sampling.crops import Crop
from wavespark.sampling.deform import Deformation, control_points, deformed, margins, turn
from wavespark.sampling.lateral import NO_SIDES, Sides
from wavespark.sampling.scene import Scene, flipped, padded
from wavespark.shapes import Triple

Widen = Callable[[Triple, Triple], Scene]
"""(margin before, margin after) -> the same window with that much more around it."""

__all__ = ["STRONG", "Augmentation", "Widen", "augment_crop", "augment_scene"]
_CONTROL = (4, 4, 4)


def augment_crop(
    augmentation: Augmentation,
    crop: Crop,
    rng: np.random.Generator,
    widen: Callable[[Triple, Triple], Crop] | None = None,
) -> Crop:
    """Augment a crop together with its foreground.

    Args:
        augmentation: strength of each change.
        crop: what to change.
        rng: source of all draws.
        widen: (margin before, margin after) -> the crop with that much more around it, for turned
            windows; None = empty surroundings.
    """
    wider = None if widen is None else lambda before, after: _scene(widen(before, after))
    changed = augment_scene(
        augmentation, _scene(crop), modality=crop.modality, spacing=crop.spacing, rng=rng, widen=wider
    )
    return replace(crop, voxels=changed.voxels, foreground=changed.maps["foreground"])


def augment_scene(
    augmentation: Augmentation,
    scene: Scene,
    *,
    modality: str,
    spacing: tuple[float, float, float],
    rng: np.random.Generator,
    sides: Sides = NO_SIDES,
    widen: Widen | None = None,
) -> Scene:
    """Augment a scene.

    The same numbers are drawn whatever the settings: switching one change off leaves the others
    alone.

    Args:
        augmentation: strength of each change.
        scene: voxels, label maps, points.
        modality: `MR` or `CT`.
        spacing: mm along D, H, W.
        rng: source of all draws.
        sides: label values that change places with left and right.
        widen: as in `augment_crop`.
    """
    draw = np.random.Generator(rng.bit_generator.jumped())  # type: ignore[attr-defined]
    flips, factor, constant, sigma = rng.random(3), rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0, 1)
    turned, zoomed, bent, blurred, biased, curved = draw.random(6) < augmentation.share
    angles, enlarged, curve, gains = draw.uniform(-1, 1, 3), *draw.uniform(-1, 1, 2), draw.uniform(-1, 1, _CONTROL)
    axis, length = int(draw.integers(3)), draw.uniform()

    matrix = turn(angles * augmentation.rotation_degrees * turned) / math.exp(
        math.log1p(augmentation.zoom) * enlarged * zoomed
    )
    bend = None
    if augmentation.elastic_mm and bent:
        bend = augmentation.elastic_mm * draw.uniform(-1, 1, (3, *control_points(scene.size, spacing)))
    if bend is not None or not np.array_equal(matrix, np.eye(3)):
        deformation = Deformation(size=scene.size, spacing=spacing, matrix=matrix, bend=bend)
        sources = deformation.sources()
        before, after = margins(sources)
        wide = padded(scene, before, after) if widen is None else widen(before, after)
        scene = deformed(wide, before, deformation, sources)
    scene = flipped(scene, tuple(a for a in range(3) if flips[a] < augmentation.flip), sides)

    voxels = scene.voxels
    if blurred and augmentation.low_resolution_mm > spacing[axis]:
        voxels = with_thick_slices(voxels, axis, 1 + length * (augmentation.low_resolution_mm / spacing[axis] - 1))
    if modality == "MR":
        if augmentation.bias_field and biased:
            voxels = with_bias_field(voxels, augmentation.bias_field * gains)
        if augmentation.gamma and curved:
            voxels = with_gamma(voxels, math.exp(augmentation.gamma * curve))
        if augmentation.scale:
            voxels = voxels * np.float32(1 + augmentation.scale * factor)
        if augmentation.shift:
            voxels = voxels + np.float32(augmentation.shift * constant)
    if augmentation.noise:
        voxels = with_noise(voxels, augmentation.noise * sigma, rng)
    return replace(scene, voxels=voxels)


def _scene(crop: Crop) -> Scene:
    return Scene(voxels=crop.voxels, maps={"foreground": crop.foreground})
