"""Voxel probes: each voxel is classified from frozen features by logistic regression, fitted to
convergence on balanced classes.

A description of a volume is a list of maps, each with its stride: features of an encoder's levels,
or the control of intensities and Gaussian derivatives. The model is linear, so that it is applied
at each stride and its logits are interpolated, which equals interpolating the features.
Legend: C channels, D H W voxels, d h w tokens, K classes, n voxels drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from wavespark.downstream.classify import visible_cells
from wavespark.downstream.features import TILE, tile_boxes
from wavespark.downstream.items import Labelled
from wavespark.errors import SettingsError
from wavespark.models import Encoder
from wavespark.prepare import StoredVolume
from wavespark.randomness import stream
from wavespark.shapes import Triple, ceil_div

Maps = list[tuple[np.ndarray, int]]
"""float32 [C, d, h, w] with its stride in voxels, finest first."""
Describe = Callable[[StoredVolume], Maps]

SCALES_MM = (1.5, 3.0, 6.0, 12.0)
"""Standard deviations of the Gaussians in the control, in millimetres."""
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of |W|^2 / 2 beside the mean loss, W for whitened features."""
_SMALLEST_VARIANCE = 1e-6
_VOXELS = 10_000
"""Voxels of one fit, spread evenly over people and classes."""
_SCREENED = 4_000
"""Voxels of the fits that choose the penalty."""


@torch.inference_mode()
def encoder_maps(encoder: Encoder, volume: StoredVolume, tile: int | Triple = TILE) -> Maps:
    """Encode the cells of a volume that hold foreground; other tokens are 0.

    Args:
        encoder: in evaluation mode.
        volume: with as many channels as the encoder's stem takes.
        tile: see `features.volume_tokens`.
    """
    device = next(encoder.parameters()).device
    voxels, foreground = volume.read(), volume.read_foreground()
    maps = [
        np.zeros((c, *ceil_div(volume.size, (s, s, s))), np.float32)
        for c, s in zip(encoder.channels, encoder.strides, strict=True)
    ]
    for start, box in tile_boxes(volume.size, tile, encoder.cell):
        if not foreground[box].any():
            continue
        visible = torch.from_numpy(visible_cells(foreground[box], encoder.cell))[None]
        crop = torch.from_numpy(voxels[(slice(None), *box)])[None].to(device)
        for whole, stride, level in zip(
            maps, encoder.strides, encoder(crop, visible, modality=volume.modality), strict=True
        ):
            part = level.to_dense()[0].float().cpu().numpy()
            place = tuple(slice(s // stride, s // stride + n) for s, n in zip(start, part.shape[1:], strict=True))
            whole[(slice(None), *place)] = part
    return list(zip(maps, encoder.strides, strict=True))


def intensity_maps(volume: StoredVolume) -> Maps:
    """Describe each voxel by its intensity and, at four scales, the Gaussian mean of its
    neighbourhood and the derivatives.

    At each scale: mean, three first derivatives, gradient magnitude, three second derivatives
        (Gaussian kernels; scale-normalised; `SCALES_MM`).
    """
    channels = []
    for voxels in volume.read():
        channels.append(voxels)
        for scale in SCALES_MM:
            sigma = [scale / s for s in volume.spacing]

            def derivative(*orders: int, voxels: np.ndarray = voxels, sigma: list[float] = sigma) -> np.ndarray:
                factor = np.prod([s**o for s, o in zip(sigma, orders, strict=True)])
                return np.asarray(ndimage.gaussian_filter(voxels, sigma, orders, mode="nearest", truncate=3.0) * factor)

            first = [derivative(1, 0, 0), derivative(0, 1, 0), derivative(0, 0, 1)]
            second = [derivative(2, 0, 0), derivative(0, 2, 0), derivative(0, 0, 2)]
            channels += [derivative(0, 0, 0), *first, np.sqrt(sum(f**2 for f in first)), *second]
    return [(np.stack(channels).astype(np.float32), 1)]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VoxelProbe:
    """A fitted linear classifier of voxels."""

    weight: np.ndarray
    """float64 [K, C]: for the channels of all maps side by side."""
    bias: np.ndarray
    """float64 [K]."""
    penalty: float
    """The one of `PENALTIES` that was chosen."""

    def predict(self, maps: Maps, foreground_DHW: np.ndarray) -> np.ndarray:
        """The likeliest class of each voxel, uint8 [D, H, W]; 0 outside the foreground."""
        size, first = foreground_DHW.shape, 0
        logits = torch.zeros(len(self.bias), *size)
        for values, stride in maps:
            weight = torch.from_numpy(self.weight[:, first : first + len(values)]).float()
            first += len(values)
            coarse = torch.einsum("kc,cdhw->kdhw", weight, torch.from_numpy(values))
            if stride > 1:
                coarse = F.interpolate(coarse[None], scale_factor=float(stride), mode="trilinear", align_corners=False)[
                    0
                ]
            logits += coarse[:, : size[0], : size[1], : size[2]]
        logits += torch.from_numpy(self.bias).float()[:, None, None, None]
        return np.where(foreground_DHW, logits.argmax(0).numpy(), 0).astype(np.uint8)


def read_maps(maps: Maps, voxels_n3: np.ndarray) -> np.ndarray:
    """Interpolate maps linearly at voxels.

    Args:
        maps: descriptions of one volume.
        voxels_n3: voxel indices.

    Returns:
        float64 [n, C].
    """
    columns = []
    for values, stride in maps:
        places = (voxels_n3 + 0.5) / stride - 0.5
        limits = np.array(values.shape[1:]) - 1
        inside = np.clip(places, 0, limits).T
        columns.append(np.stack([ndimage.map_coordinates(v, inside, order=1) for v in values], 1))
    return np.concatenate(columns, 1).astype(np.float64)


def fit_voxel_probe(items: Sequence[Labelled], describe: Describe, classes: int, *, seed: int = 0) -> VoxelProbe:
    """Fit a probe on the foreground of labelled volumes.

    Voxels are drawn evenly from people and classes. The penalty is chosen by the log loss on people
    who were left out; with one person, on the other half of the head.

    Args:
        items: volumes with label maps.
        describe: volume -> maps.
        classes: K, with the background.
        seed: random seed of the draws.

    Raises:
        SettingsError: if no voxel of the foreground is labelled, or all have one class.
    """
    rows, truth, groups = [], [], []
    for number, item in enumerate(items):
        voxels, labels = draw_voxels(item, classes, max(1, _VOXELS // (classes * len(items))), seed)
        rows.append(read_maps(describe(item.volume), voxels))
        truth.append(labels)
        halves = (voxels[:, 0] > np.median(voxels[:, 0])).astype(int)
        groups.append(halves if len(items) == 1 else np.full(len(labels), number % 2))
    x, y, side = np.concatenate(rows), np.concatenate(truth), np.concatenate(groups)
    if len(np.unique(y)) < 2:
        raise SettingsError(
            f"a voxel probe needs voxels of two classes, got {len(np.unique(y))} in {len(items)} volume(s)"
        )
    mean, whitening = _whitening(x)
    z = (x - mean) @ whitening
    penalty = _best_penalty(z, y, side, seed)
    weight, bias = _fit(z, y, penalty, classes)
    weight = weight @ whitening.T
    return VoxelProbe(weight=weight, bias=bias - weight @ mean, penalty=penalty)


def draw_voxels(item: Labelled, classes: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw voxels of the foreground, `each` of every class or all there are.

    Returns:
        Voxel indices int64 [n, 3] and class numbers int64 [n].
    """
    labels = np.where(item.volume.read_foreground(), item.read_map().astype(np.int64), -1)
    rng = stream(seed, purpose="probe voxels", volume=item.volume.content)
    voxels, numbers = [], []
    for k in range(classes):
        places = np.argwhere(labels == k)
        places = places if len(places) <= each else places[rng.choice(len(places), each, replace=False)]
        voxels.append(places)
        numbers.append(np.full(len(places), k))
    return np.concatenate(voxels), np.concatenate(numbers)


def _whitening(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [C] and matrix [C, P] that turn features into uncorrelated ones of variance 1.

    Levels of an encoder, and Gaussians of neighbouring scales, are strongly correlated; L-BFGS then
    takes thousands of iterations, and some fifty after whitening. Directions with less than a
    millionth of the mean variance are left out.
    """
    mean, deviation = x.mean(0), x.std(0)
    scale = np.where(deviation > 1e-8, deviation, np.inf)
    variances, axes = np.linalg.eigh(np.cov(((x - mean) / scale).T).reshape(x.shape[1], -1))
    kept = variances > _SMALLEST_VARIANCE
    return mean, axes[:, kept] / np.sqrt(variances[kept]) / scale[:, None]


def _best_penalty(z: np.ndarray, y: np.ndarray, side: np.ndarray, seed: int) -> float:
    """The penalty with the smallest log loss, fitted on either side and tested on the other."""
    rng = stream(seed, purpose="probe screening")
    losses = np.zeros(len(PENALTIES))
    for test in (0, 1):
        train, out = np.flatnonzero(side != test), np.flatnonzero(side == test)
        if len(np.unique(y[train])) < 2 or not len(out):
            return PENALTIES[len(PENALTIES) // 2]
        train = rng.permutation(train)[: _SCREENED // 2]
        for k, penalty in enumerate(PENALTIES):
            weight, bias = _fit(z[train], y[train], penalty, int(y.max()) + 1)
            logits = z[out] @ weight.T + bias
            logits -= np.logaddexp.reduce(logits, axis=1, keepdims=True)
            losses[k] -= logits[np.arange(len(out)), y[out]].clip(min=-30).mean()
    return PENALTIES[int(losses.argmin())]


def _fit(z: np.ndarray, y: np.ndarray, penalty: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [K, C] and biases [K] of the multinomial regression; a class without a voxel is never
    predicted."""
    from sklearn.linear_model import LogisticRegression

    share = 1 / np.bincount(y, minlength=classes).clip(min=1)[y]
    share *= len(y) / share.sum()
    model = LogisticRegression(C=1 / (penalty * len(y)), tol=1e-4, max_iter=2000).fit(z, y, share)
    weight, bias = np.zeros((classes, z.shape[1])), np.full(classes, -np.inf)
    present = model.classes_.astype(int)
    if len(present) == 2:
        weight[present], bias[present] = [0 * model.coef_[0], model.coef_[0]], [0, model.intercept_[0]]
    else:
        weight[present], bias[present] = model.coef_, model.intercept_
    return weight, bias
