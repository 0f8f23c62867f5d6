"""Smooth random fields that belong to space, not to a grid: the same head comes out at every shape
and spacing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SmoothField:
    """A cubic B-spline field over a cube around the origin; 0 outside it."""

    knots: Array
    """Coefficients `[K, K, K]`."""
    step: float
    """Distance between knots, mm."""

    @classmethod
    def draw(cls, rng: np.random.Generator, step: float, extent: float = 150.0) -> "SmoothField":
        """Gaussian noise of mean 0 and standard deviation about 1, with details about `2 * step` mm
        wide."""
        count = 2 * int(np.ceil(extent / step)) + 1
        white = rng.standard_normal((count, count, count), dtype=np.float32)
        return cls(white / np.float32(0.479**1.5), step)  # 0.479: mean of the sum of the squared cubic weights

    def on_grid(self, axes: tuple[Array, Array, Array]) -> Array:
        """Values `[D, H, W]` on the grid spanned by three coordinate vectors, in mm."""
        d, h, w = (self._weights(a) for a in axes)
        rows = np.tensordot(self.knots, w, axes=(2, 1))  # [K, K, W]; axis by axis: the weights are separable
        planes = np.tensordot(h, rows, axes=(1, 1))  # [H, K, W]
        return np.asarray(np.tensordot(d, planes, axes=(1, 1)), dtype=np.float32)

    def at(self, points_N3: Array) -> Array:
        """Values `[N]` at scattered points, in mm."""
        d, h, w = (self._weights(np.ascontiguousarray(points_N3[:, i])) for i in range(3))
        lines = np.einsum("nk,klm->nlm", d, self.knots, optimize=True)
        return np.asarray(np.einsum("nlm,nl,nm->n", lines, h, w, optimize=True), dtype=np.float32)

    def _weights(self, position_N: Array) -> Array:
        """Cubic B-spline weights `[N, K]`."""
        count = self.knots.shape[0]
        u = np.abs(position_N[:, None] / self.step + (count - 1) / 2 - np.arange(count)).astype(np.float32)
        inner = 2 / 3 - u**2 + u**3 / 2
        return np.where(u < 1, inner, np.where(u < 2, (2 - u) ** 3 / 6, 0)).astype(np.float32)
