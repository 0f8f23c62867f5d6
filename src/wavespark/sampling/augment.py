"""Changes of a window that keep what it shows. Each changes the image; where things move, label maps and points move along."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from wavespark.errors import SettingsError
from wavespark.sampling.appearance import with_bias_field, with_gamma, with_noise, with_thick_slices
from wavespark.sampling.crops import Crop
from wavespark.sampling.deform import MOST_BEND_MM, Deformation, control_points, deformed, margins, turn
from wavespark.sampling.lateral import NO_SIDES, Sides
from wavespark.sampling.scene import Scene, flipped, padded
from wavespark.shapes import Triple

Widen = Callable[[Triple, Triple], Scene]
"""(margin before, margin after) -> the same window with that much more around it."""

_MOST = {
    "flip": 1.0,
    "rotation_degrees": 180.0,
    "zoom": 0.5,
    "elastic_mm": MOST_BEND_MM,
    "low_resolution_mm": 20.0,
    "bias_field": 2.0,
    "gamma": 2.0,
    "scale": 0.99,
    "shift": math.inf,
    "noise": math.inf,
    "share": 1.0,
}
_CONTROL = (4, 4, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How much; zero turns a change off.

    Raises:
        SettingsError: if a setting is negative or larger than what keeps a head a head.
    """

    flip: float = 0.5
    """Probability to mirror each axis."""
    rotation_degrees: float = 0.0
    """Turned about each axis by up to this much, in mm space."""
    zoom: float = 0.0
    """Enlarged or made smaller by up to this share."""
    elastic_mm: float = 0.0
    """Bent: control points 32 mm apart move by up to this along each axis."""
    low_resolution_mm: float = 0.0
    """One axis as if acquired with voxels up to this long."""
    bias_field: float = 0.0
    """Logarithm of the largest gain of a smooth field of coil sensitivity (MR only: the values of CT have a meaning)."""
    gamma: float = 0.0
    """Logarithm of the largest exponent of a contrast curve (MR only)."""
    share: float = 0.2
    """Probability of each of the six changes above in a window."""
    scale: float = 0.1
    """Values are multiplied by a factor from 1 - scale to 1 + scale (MR only)."""
    shift: float = 0.1
    """A constant from -shift to shift is added (MR only)."""
    noise: float = 0.02
    """Standard deviation of added Gaussian noise, at most."""

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if not 0 <= value <= _MOST[name] or not math.isfinite(value):
                raise SettingsError(f"augmentation {name} must lie between 0 and {_MOST[name]:g}, got {value}")

    def __call__(
        self, crop: Crop, rng: np.random.Generator, widen: Callable[[Triple, Triple], Crop] | None = None
    ) -> Crop:
        """The changed crop, its foreground with it.

        Args:
            crop: what to change.
            rng: decides.
            widen: (margin before, after) -> the crop with more around it, for turned windows; without it nothing lies around.
        """
        wider = None if widen is None else lambda before, after: _scene(widen(before, after))
        made = self.scene(_scene(crop), modality=crop.modality, spacing=crop.spacing, rng=rng, widen=wider)
        return replace(crop, voxels=made.voxels, foreground=made.maps["foreground"])

    def scene(
        self,
        scene: Scene,
        *,
        modality: str,
        spacing: tuple[float, float, float],
        rng: np.random.Generator,
        sides: Sides = NO_SIDES,
        widen: Widen | None = None,
    ) -> Scene:
        """The changed scene. The same numbers are drawn whatever the settings, so that switching one change off leaves the others as they were.

        Args:
            scene: voxels, label maps, points.
            modality: `MR` or `CT`.
            spacing: mm along D, H, W.
            rng: decides.
            sides: label values that change places with left and right.
            widen: as in `__call__`.
        """
        draw = np.random.Generator(rng.bit_generator.jumped())  # type: ignore[attr-defined]
        flips, factor, constant, sigma = rng.random(3), rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0, 1)
        turned, zoomed, bent, blurred, biased, curved = draw.random(6) < self.share
        angles, enlarged, curve, gains = draw.uniform(-1, 1, 3), *draw.uniform(-1, 1, 2), draw.uniform(-1, 1, _CONTROL)
        axis, length = int(draw.integers(3)), draw.uniform()

        matrix = turn(angles * self.rotation_degrees * turned) / math.exp(math.log1p(self.zoom) * enlarged * zoomed)
        bend = None
        if self.elastic_mm and bent:
            bend = self.elastic_mm * draw.uniform(-1, 1, (3, *control_points(scene.size, spacing)))
        if bend is not None or not np.array_equal(matrix, np.eye(3)):
            deformation = Deformation(size=scene.size, spacing=spacing, matrix=matrix, bend=bend)
            sources = deformation.sources()
            before, after = margins(sources)
            wide = padded(scene, before, after) if widen is None else widen(before, after)
            scene = deformed(wide, before, deformation, sources)
        scene = flipped(scene, tuple(a for a in range(3) if flips[a] < self.flip), sides)

        voxels = scene.voxels
        if blurred and self.low_resolution_mm > spacing[axis]:
            voxels = with_thick_slices(voxels, axis, 1 + length * (self.low_resolution_mm / spacing[axis] - 1))
        if modality == "MR":
            if self.bias_field and biased:
                voxels = with_bias_field(voxels, self.bias_field * gains)
            if self.gamma and curved:
                voxels = with_gamma(voxels, math.exp(self.gamma * curve))
            if self.scale:
                voxels = voxels * np.float32(1 + self.scale * factor)
            if self.shift:
                voxels = voxels + np.float32(self.shift * constant)
        if self.noise:
            voxels = with_noise(voxels, self.noise * sigma, rng)
        return replace(scene, voxels=voxels)


STRONG = Augmentation(
    rotation_degrees=15,
    zoom=0.2,
    elastic_mm=4,
    low_resolution_mm=4,
    bias_field=0.4,
    gamma=0.35,
    share=0.25,
)
"""For fine-tuning on few labels."""


def _scene(crop: Crop) -> Scene:
    return Scene(voxels=crop.voxels, maps={"foreground": crop.foreground})
