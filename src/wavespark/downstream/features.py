"""Frozen features of whole volumes: for each level, mean and spread over the head, from its visible cells alone."""

from collections.abc import Sequence

import numpy as np
import torch

from wavespark.downstream.classify import tiles, visible_cells
from wavespark.models import Encoder
from wavespark.prepare import StoredVolume
from wavespark.progress import OnProgress, ignore_progress
from wavespark.shapes import Triple


@torch.inference_mode()
def volume_features(encoder: Encoder, volume: StoredVolume, tile: Triple = (64, 64, 64)) -> list[np.ndarray]:
    """For each level, finest first: float64 [2 C], mean and standard deviation of its tokens over all cells with foreground.

    The volume is cut into tiles that do not overlap; cells without foreground are never computed.

    Args:
        encoder: in evaluation mode.
        volume: with as many channels as the encoder's stem takes.
        tile: voxels along D, H, W, rounded down to whole cells.
    """
    device = next(encoder.parameters()).device
    voxels, foreground = volume.read(), volume.read_foreground()
    sums = [np.zeros((2, c)) for c in encoder.channels]
    counts = [0] * len(encoder.channels)
    for box in tiles(volume.size, tile, encoder.cell):
        if not foreground[box].any():
            continue
        visible = torch.from_numpy(visible_cells(foreground[box], encoder.cell))[None]
        crop = torch.from_numpy(voxels[(slice(None), *box)])[None].to(device)
        for i, level in enumerate(encoder(crop, visible, modality=volume.modality)):
            tokens = level.features.flatten(0, 3).double()
            inside = level.layout.inside(level.block)
            tokens = tokens if inside is None else tokens[inside.flatten()]
            sums[i] += torch.stack((tokens.sum(0), (tokens**2).sum(0))).cpu().numpy()
            counts[i] += len(tokens)
    pooled = []
    for (first, second), n in zip(sums, counts, strict=True):
        mean = first / max(n, 1)
        pooled.append(np.concatenate((mean, np.sqrt(np.maximum(second / max(n, 1) - mean**2, 0)))))
    return pooled


def store_features(
    encoder: Encoder,
    volumes: Sequence[StoredVolume],
    tile: Triple = (64, 64, 64),
    on_progress: OnProgress = ignore_progress,
) -> list[np.ndarray]:
    """For each level: float64 [N, 2 C], a row a volume."""
    encoder.eval()
    rows = []
    for number, volume in enumerate(volumes, 1):
        rows.append(volume_features(encoder, volume, tile))
        on_progress(number, len(volumes), f"{number} of {len(volumes)} volumes")
    return [np.stack(level) for level in zip(*rows, strict=True)]
