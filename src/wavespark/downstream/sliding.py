"""A volume of any size, predicted window by window; where windows overlap, the middle of a window
counts more.

The numbers are those of MONAI's `sliding_window_inference(mode="gaussian")` (tested); MONAI itself
is not used, because its import alone takes seconds.
Axes: C channels, K predicted channels, D H W voxels.
"""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor

from wavespark.errors import ShapeError
from wavespark.shapes import Triple

SIGMA = 0.125
"""Standard deviation of the importance, in windows."""

_SMALLEST = 1e-3


def sliding_window(
    voxels_CDHW: Tensor,
    window: Triple,
    predict: Callable[[Tensor], Tensor],
    *,
    overlap: float = 0.25,
    batch: int = 2,
    needed_DHW: np.ndarray | None = None,
) -> Tensor:
    """[K, D, H, W]: the weighted mean of the predictions of all windows that cover a voxel.

    Args:
        voxels_CDHW: float32.
        window: voxels along D, H, W; a smaller volume is padded with each channel's lowest value
            and the prediction cut back.
        predict: [B, C, *window] -> [B, K, *window].
        overlap: share of a window that its neighbour sees again.
        batch: windows at a time.
        needed_DHW: bool; windows without any True voxel are not computed, and voxels that no window
            covers hold 0.

    Raises:
        ShapeError: if the prediction has another size than the window.
    """
    size = tuple(voxels_CDHW.shape[1:])
    before = [max(0, w - s) // 2 for s, w in zip(size, window, strict=True)]
    padded = _padded(voxels_CDHW, size, window, before)
    grown = tuple(padded.shape[1:])
    starts = [
        s
        for s in window_starts((grown[0], grown[1], grown[2]), window, overlap)
        if _is_needed(needed_DHW, s, window, before)
    ]
    weight = importance(window).to(voxels_CDHW)
    total = voxels_CDHW.new_zeros(1, *grown)
    result: Tensor | None = None
    for k in range(0, len(starts), batch):
        boxes = [tuple(slice(a, a + n) for a, n in zip(s, window, strict=True)) for s in starts[k : k + batch]]
        found = predict(torch.stack([padded[(slice(None), *box)] for box in boxes]))
        if tuple(found.shape[2:]) != tuple(window):
            raise ShapeError(f"a window of {window} was predicted as {tuple(found.shape[2:])}")
        if result is None:
            result = voxels_CDHW.new_zeros(found.shape[1], *grown)
        for box, one in zip(boxes, found, strict=True):
            result[(slice(None), *box)] += one.to(result.dtype) * weight
            total[(slice(None), *box)] += weight
    if result is None:
        raise ShapeError("no window is needed: there is no foreground to predict")
    inner = tuple(slice(b, b + s) for b, s in zip(before, size, strict=True))
    return (result / total.clamp(min=1e-12))[(slice(None), *inner)]


def window_starts(size: Triple, window: Triple, overlap: float) -> Iterator[Triple]:
    """Corners of windows that cover the box; the last along an axis is moved back inside."""
    axes = []
    for s, w in zip(size, window, strict=True):
        step = w if s == w else max(1, int(w * (1 - overlap)))
        count = 1 if s <= w else -(-(s - w) // step) + 1
        axes.append([min(k * step, s - w) for k in range(count)])
    yield from product(*axes)  # type: ignore[misc]


def importance(window: Triple) -> Tensor:
    """float32 [*window]: a Gaussian around the middle, at least 1e-3."""
    weight = torch.ones(())
    for n in window:
        x = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
        weight = weight[..., None] * torch.exp(-(x**2) / (2 * (SIGMA * n) ** 2))
    return weight.clamp(min=_SMALLEST)


def _padded(voxels: Tensor, size: tuple[int, ...], window: Triple, before: list[int]) -> Tensor:
    if all(s >= w for s, w in zip(size, window, strict=True)):
        return voxels
    grown = [max(s, w) for s, w in zip(size, window, strict=True)]
    lowest = voxels.flatten(1).amin(1)
    padded = lowest[:, None, None, None].expand(-1, *grown).clone()
    box = tuple(slice(b, b + s) for b, s in zip(before, size, strict=True))
    padded[(slice(None), *box)] = voxels
    return padded


def _is_needed(needed: np.ndarray | None, start: Triple, window: Triple, before: list[int]) -> bool:
    if needed is None:
        return True
    box = tuple(slice(max(0, a - b), max(0, a - b + n)) for a, b, n in zip(start, before, window, strict=True))
    return bool(needed[box].any())
