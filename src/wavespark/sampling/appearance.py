"""Changes of what a window looks like and not of where things are.

Voxels are float32 [C, D, H, W]; each returns a new array.
"""

import numpy as np

from wavespark.prepare.resample import apply_along, axis_matrix, gaussian_sigma
from wavespark.sampling.deform import smooth_field, spline_weights


def with_bias_field(voxels: np.ndarray, log_gain: np.ndarray) -> np.ndarray:
    """Brighter here, darker there, as near a receive coil: each channel's height above its lowest
    value times exp(a smooth field).

    Args:
        voxels: MR.
        log_gain: [a, b, c], at least 4 along each axis: coefficients of a cubic B-spline over the
            window.
    """
    weights = [spline_weights(n, c) for n, c in zip(voxels.shape[1:], log_gain.shape, strict=True)]
    gain = np.exp(smooth_field(log_gain, weights))
    lowest = voxels.min(axis=(1, 2, 3), keepdims=True)
    return (voxels - lowest) * gain + lowest


def with_gamma(voxels: np.ndarray, exponent: float) -> np.ndarray:
    """Another contrast curve: each channel's place between its lowest and highest value to the
    power of `exponent`."""
    lowest = voxels.min(axis=(1, 2, 3), keepdims=True)
    extent = np.maximum(voxels.max(axis=(1, 2, 3), keepdims=True) - lowest, np.float32(1e-6))
    return np.power((voxels - lowest) / extent, np.float32(exponent)) * extent + lowest


def with_thick_slices(voxels: np.ndarray, axis: int, factor: float) -> np.ndarray:
    """Simulate an acquisition with voxels `factor` times as long along one axis (0, 1, 2),
    interpolated back.

    Blur, thinning and linear interpolation are one matrix. Factors up to 1 change nothing.
    """
    size = voxels.shape[axis + 1]
    if factor <= 1 or size < 2:
        return voxels
    thick = max(1, round(size / factor))
    step = size / thick
    centres = (np.arange(thick) + 0.5) * step - 0.5
    thin = axis_matrix(size, centres, sigma=gaussian_sigma(step), kernel="linear")
    back = axis_matrix(thick, (np.arange(size) + 0.5) / step - 0.5, kernel="linear")
    matrix = back @ thin
    return np.stack([apply_along(channel, matrix, axis) for channel in voxels])


def with_noise(voxels: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """With Gaussian noise of that standard deviation added."""
    # A million numbers: SFC64, started from the sample's own stream, makes them in three quarters
    # of Philox's time.
    quick = np.random.Generator(np.random.SFC64(int(rng.integers(2**63))))
    noise = quick.standard_normal(voxels.shape, dtype=np.float32)
    noise *= np.float32(deviation)
    noise += voxels
    return noise
