"""Settings of augmentation, checked without torch; `augment.py` applies them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from wavespark.errors import SettingsError
from wavespark.shapes import Triple

if TYPE_CHECKING:
    import numpy as np

    from wavespark.sampling.crops import Crop
    from wavespark.sampling.lateral import Sides
    from wavespark.sampling.scene import Scene

MOST_BEND_MM = 8.0
"""Largest movement (mm) of control points 32 mm apart; beyond it a window could fold."""
_LIMITS = {
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
"""Largest value of each setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Strength of each change of a training window; zero turns a change off.

    Raises:
        SettingsError: if a setting is negative or larger than what keeps a head a head.
    """

    flip: float = 0.5
    """Probability to mirror each axis."""
    rotation_degrees: float = 0.0
    """Largest rotation about each axis, degrees."""
    zoom: float = 0.0
    """Largest change of size, as a share."""
    elastic_mm: float = 0.0
    """Largest elastic displacement (mm) along each axis of control points 32 mm apart."""
    low_resolution_mm: float = 0.0
    """Largest simulated voxel length (mm) along one axis."""
    bias_field: float = 0.0
    """Logarithm of the largest gain of a smooth bias field (MR only: CT values are calibrated)."""
    gamma: float = 0.0
    """Logarithm of the largest exponent of a contrast curve (MR only)."""
    share: float = 0.2
    """Probability of each of the six changes from `rotation_degrees` to `gamma` in a window."""
    scale: float = 0.1
    """Largest change of the intensity scale, as a share (MR only)."""
    shift: float = 0.1
    """Largest constant added to the intensities, in either direction (MR only)."""
    noise: float = 0.02
    """Largest standard deviation of added Gaussian noise."""

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if not 0 <= value <= _LIMITS[name] or not math.isfinite(value):
                raise SettingsError(f"augmentation {name} must lie between 0 and {_LIMITS[name]:g}, got {value}")

    def __call__(
        self, crop: "Crop", rng: "np.random.Generator", widen: "Callable[[Triple, Triple], Crop] | None" = None
    ) -> "Crop":
        """Augment a crop and its foreground; see `augment.augment_crop`."""
        from wavespark.sampling.augment import augment_crop

        return augment_crop(self, crop, rng, widen)

    def scene(
        self,
        scene: "Scene",
        *,
        modality: str,
        spacing: tuple[float, float, float],
        rng: "np.random.Generator",
        sides: "Sides | None" = None,
        widen: "Callable[[Triple, Triple], Scene] | None" = None,
    ) -> "Scene":
        """Augment a scene with its label maps and points; see `augment.augment_scene`."""
        from wavespark.sampling.augment import augment_scene
        from wavespark.sampling.lateral import NO_SIDES

        return augment_scene(
            self, scene, modality=modality, spacing=spacing, rng=rng, sides=sides or NO_SIDES, widen=widen
        )


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
