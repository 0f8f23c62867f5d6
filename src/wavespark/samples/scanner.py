"""From an ideal picture to what a scanner delivers: thick slices, shading, noise, whole numbers."""

from typing import cast

import numpy as np
from scipy.ndimage import gaussian_filter

from wavespark.randomness import stream
from wavespark.samples.canvas import Axes
from wavespark.samples.fields import Array, SmoothField
from wavespark.samples.tissues import Contrast

_GRAIN_VOXELS, _GRAIN_LEFT = 0.6, 0.32  # the grain's width, and what that filter leaves of white noise's deviation
_CT_NOISE, _MR_NOISE = 8.0, 9.0  # standard deviation at 1 mm: HU, units


def average(values: Array, fine: tuple[int, ...]) -> Array:
    """Means over the sub-voxels of each voxel, `fine` of them along each axis."""
    for axis, k in enumerate(fine):
        if k > 1:
            values = values.reshape(*values.shape[:axis], -1, k, *values.shape[axis + 1 :]).mean(axis=axis + 1)
    return values


def scan(
    signal: Array, seed: int, contrast: Contrast, spacing: tuple[float, float, float], *, noise: float, bias: float
) -> Array:
    """Whole numbers with the scanner's noise: Gaussian and grainy in CT; Rician, under a coil's
    shading, in MR.

    Args:
        signal: what is there, `[D, H, W]`.
        noise: relative to the mean scanner; larger voxels are less noisy.
        bias: depth of the coil's shading (standard deviation of its logarithm).
    """
    rng = stream(seed, purpose="samples.noise")
    first, second = (rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2))
    level = noise / max(float(np.prod(spacing)) ** (1 / 6), 0.7)
    if contrast == "CTA":
        grain = gaussian_filter(first, _GRAIN_VOXELS, truncate=3.0) * np.float32(level * _CT_NOISE / _GRAIN_LEFT)
        return np.clip(np.rint(signal + grain), -1024, 3071).astype(np.float32)
    axes = tuple((np.arange(n, dtype=np.float32) - (n - 1) / 2) * s for n, s in zip(signal.shape, spacing, strict=True))
    coil = SmoothField.draw(stream(seed, purpose="samples.shading"), 60.0).on_grid(cast(Axes, axes))
    sd = np.float32(level * _MR_NOISE)
    return np.rint(np.hypot(signal * np.exp(np.float32(bias) * coil) + sd * first, sd * second)).astype(np.float32)
