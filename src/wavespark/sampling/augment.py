"""Changes of a crop that keep what it shows: mirrored axes, brightness, contrast, noise. Each changes the image."""

from dataclasses import dataclass, replace

import numpy as np

from wavespark.sampling.crops import Crop


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How much; zero turns a change off."""

    flip: float = 0.5
    """Probability to mirror each axis. Pre-training has no lateral labels to swap."""
    scale: float = 0.1
    """Values are multiplied by a factor from 1 - scale to 1 + scale (MR only: the values of CT have a meaning)."""
    shift: float = 0.1
    """A constant from -shift to shift is added (MR only)."""
    noise: float = 0.02
    """Standard deviation of added Gaussian noise, at most."""

    def __call__(self, crop: Crop, rng: np.random.Generator) -> Crop:
        """The changed crop. The same numbers are drawn whatever the settings, so that switching one change off leaves the others as they were."""
        flips, factor, constant, sigma = rng.random(3), rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0, 1)
        axes = tuple(axis for axis in range(3) if flips[axis] < self.flip)
        voxels = np.flip(crop.voxels, tuple(a + 1 for a in axes)) if axes else crop.voxels
        foreground = np.flip(crop.foreground, axes) if axes else crop.foreground
        if crop.modality == "MR":
            voxels = voxels * np.float32(1 + self.scale * factor) + np.float32(self.shift * constant)
        if self.noise:
            voxels = voxels + np.float32(self.noise * sigma) * rng.standard_normal(voxels.shape, dtype=np.float32)
        return replace(crop, voxels=np.ascontiguousarray(voxels), foreground=np.ascontiguousarray(foreground))
