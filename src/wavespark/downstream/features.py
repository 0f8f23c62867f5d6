"""Frozen features of whole volumes, pooled over the head, and the two controls that need no
network.

Legend: T tokens, C channels of a level, D features of a row.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from wavespark.downstream.classify import visible_cells
from wavespark.errors import SettingsError
from wavespark.models import Encoder
from wavespark.prepare import StoredVolume
from wavespark.progress import OnProgress, ignore_progress
from wavespark.shapes import Triple, ceil_div
from wavespark.sparse import VisibleCells

POOLS = ("mean", "deviation", "quantiles", "max", "regions", "volume")
"""Ways to pool the tokens of a level; see `pool_tokens`."""
DEFAULT_POOLS = ("mean", "deviation")
TILE = 128
"""Voxels along each edge of a piece that is encoded at once; a head at 1.5 mm fits into one."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_INSIDE = 0.5
"""Share of foreground from which a token counts for quantiles and the maximum."""
_BINS = 64
_RANGE = (0.5, 99.5)
"""Percentiles of the foreground between which the histogram has its bins."""


@torch.inference_mode()
def volume_tokens(
    encoder: Encoder, volume: StoredVolume, tile: int | Triple = TILE
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Encode the cells of a volume that hold foreground; other cells are never computed.

    Args:
        encoder: in evaluation mode.
        volume: with as many channels as the encoder's stem takes.
        tile: voxels along each edge, or along D, H, W, of the pieces (rounded up to whole cells,
            without overlap).

    Returns:
        For each level, finest first: tokens float32 [T, C], their centres in voxels float32 [T, 3],
            and the share of foreground in each float32 [T], above 0.
    """
    device = next(encoder.parameters()).device
    voxels, foreground = volume.read(), volume.read_foreground()
    if not foreground.any():
        foreground = np.ones_like(foreground)
    parts: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = [[] for _ in encoder.channels]
    for start, box in tile_boxes(volume.size, tile, encoder.cell):
        if not foreground[box].any():
            continue
        visible = torch.from_numpy(visible_cells(foreground[box], encoder.cell))[None]
        crop = torch.from_numpy(voxels[(slice(None), *box)])[None].to(device)
        mask = torch.from_numpy(foreground[box])[None, None].float()
        shares = VisibleCells.from_dense(mask, visible, encoder.cell).features[..., 0]
        for part, level in zip(parts, encoder(crop, visible, modality=volume.modality), strict=True):
            part.append(_tokens(level, shares, start))
    return [tuple(np.concatenate(kind) for kind in zip(*part, strict=True)) for part in parts]  # type: ignore[misc]


def _tokens(level: VisibleCells, shares: torch.Tensor, start: Triple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of a level that hold foreground, their centres in voxels of the volume, and their
    shares of foreground."""
    block, stride = level.block, level.stride
    pieces = [size for pair in zip(block, stride, strict=True) for size in pair]
    share = shares.reshape(len(shares), *pieces).mean((2, 4, 6))
    inside = (share > 0).flatten()
    axes = [
        (level.cells[:, a + 1, None].cpu() * block[a] + torch.arange(block[a]) + 0.5) * stride[a] + start[a]
        for a in range(3)
    ]
    shape = (len(shares), *block)
    centres = torch.stack(
        [
            axes[0][:, :, None, None].expand(shape),
            axes[1][:, None, :, None].expand(shape),
            axes[2][:, None, None, :].expand(shape),
        ],
        -1,
    )
    tokens = level.features.flatten(0, 3).float().cpu()
    return tokens[inside].numpy(), centres.flatten(0, 3)[inside].float().numpy(), share.flatten()[inside].numpy()


def tile_boxes(size: Triple, tile: int | Triple, cell: Triple) -> Iterator[tuple[Triple, tuple[slice, ...]]]:
    """Cut a volume into boxes that do not overlap.

    Args:
        size: voxels along D, H, W.
        tile: voxels along each edge of a box, or along D, H, W, rounded up to whole cells.
        cell: voxels of a cell.

    Yields:
        First voxel of a box, and its slices; they may reach beyond the volume.
    """
    edges = (tile,) * 3 if isinstance(tile, int) else tile
    cells = ceil_div([min(s, e) for s, e in zip(size, edges, strict=True)], cell)
    steps = [c * n for c, n in zip(cell, cells, strict=True)]
    for d in range(0, size[0], steps[0]):
        for h in range(0, size[1], steps[1]):
            for w in range(0, size[2], steps[2]):
                start = (d, h, w)
                yield start, tuple(slice(s, s + n) for s, n in zip(start, steps, strict=True))


def pool_tokens(
    tokens_TC: np.ndarray, centres_T3: np.ndarray, share_T: np.ndarray, pools: Sequence[str]
) -> dict[str, np.ndarray]:
    """Pool the tokens of a level over the head.

    `mean` and `deviation` weigh a token by its share of foreground. `quantiles` (5, 25, 50, 75, 95
    %) and `max` are over the tokens that are at least half foreground. `regions` are the weighted
    means of the eight octants of the box around the tokens, relative to the mean of all.

    Args:
        tokens_TC, centres_T3, share_T: of `volume_tokens`.
        pools: some of `POOLS`; `volume` is not pooled from tokens and left out.

    Returns:
        Name -> float64 [C], [5 C] or [8 C].
    """
    tokens, weight = tokens_TC.astype(np.float64), share_T.astype(np.float64)
    mean = weight @ tokens / weight.sum()
    pooled: dict[str, np.ndarray] = {}
    full = share_T >= _INSIDE
    inside = tokens[full] if full.any() else tokens
    for name in pools:
        if name == "mean":
            pooled[name] = mean
        elif name == "deviation":
            pooled[name] = np.sqrt(weight @ (tokens - mean) ** 2 / weight.sum())
        elif name == "quantiles":
            pooled[name] = np.quantile(inside, _QUANTILES, axis=0).ravel()
        elif name == "max":
            pooled[name] = inside.max(0)
        elif name == "regions":
            pooled[name] = (_octants(tokens, centres_T3, weight, mean) - mean).ravel()
    return pooled


def _octants(tokens: np.ndarray, centres: np.ndarray, weight: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Weighted mean [8, C] of the tokens in each octant of their box; the mean of all where an
    octant is empty."""
    upper = centres > (centres.min(0) + centres.max(0)) / 2
    octant = upper @ np.array([4, 2, 1])
    result = np.tile(mean, (8, 1))
    for k in np.unique(octant):
        here = octant == k
        result[k] = weight[here] @ tokens[here] / weight[here].sum()
    return result


def check_pools(pools: Sequence[str]) -> tuple[str, ...]:
    """The pools without repeats, in the order given.

    Raises:
        SettingsError: if there is none, or one is not known.
    """
    unknown = [p for p in pools if p not in POOLS]
    if unknown or not pools:
        raise SettingsError(f"pools {tuple(pools)} must be some of {', '.join(POOLS)}")
    return tuple(dict.fromkeys(pools))


def volume_features(
    encoder: Encoder, volume: StoredVolume, tile: int | Triple = TILE, pools: Sequence[str] = DEFAULT_POOLS
) -> list[np.ndarray]:
    """Pool the features of each level over the head.

    Args:
        encoder: in evaluation mode.
        volume: with as many channels as the encoder's stem takes.
        tile: see `volume_tokens`.
        pools: some of `POOLS`, side by side in this order.

    Returns:
        For each level, finest first: float64 [D].

    Raises:
        SettingsError: if a pool is not known.
    """
    pools = check_pools(pools)
    rows = []
    for tokens, centres, share in volume_tokens(encoder, volume, tile):
        pooled = pool_tokens(tokens, centres, share, pools)
        if "volume" in pools:
            pooled["volume"] = np.array([log_volume(volume)])
        rows.append(np.concatenate([pooled[name] for name in pools]))
    return rows


def store_features(
    encoder: Encoder,
    volumes: Sequence[StoredVolume],
    tile: int | Triple = TILE,
    on_progress: OnProgress = ignore_progress,
    pools: Sequence[str] = DEFAULT_POOLS,
) -> list[np.ndarray]:
    """Pool the features of several volumes; the encoder is set to evaluation mode.

    Returns:
        For each level, finest first: float64 [N, D], a row a volume.
    """
    encoder.eval()
    rows = []
    for number, volume in enumerate(volumes, 1):
        rows.append(volume_features(encoder, volume, tile, pools))
        on_progress(number, len(volumes), f"{number} of {len(volumes)} volumes")
    return [np.stack(level) for level in zip(*rows, strict=True)]


def log_volume(volume: StoredVolume) -> float:
    """Natural logarithm of the foreground's volume in millilitres (of one voxel where there is
    none)."""
    voxels = max(1, int(volume.read_foreground().sum()))
    return float(np.log(voxels * np.prod(volume.spacing) / 1000))


def intensity_features(volumes: Sequence[StoredVolume]) -> np.ndarray:
    """Describe each volume without a network: histogram of its foreground's intensities, and the
    foreground's volume.

    The 64 bins of a channel lie between the smallest and the largest of the volumes' 0.5 and 99.5
    percentiles; values beyond are counted in the outer bins. Labels play no part.

    Args:
        volumes: all with the same number of channels.

    Returns:
        float64 [N, 64 * channels + 1]: shares of voxels, then `log_volume`.
    """
    ranges = np.array([np.percentile(_inside(v), _RANGE, axis=1) for v in volumes])
    low, high = ranges[:, 0].min(0), ranges[:, 1].max(0)
    rows = []
    for volume in volumes:
        values, row = _inside(volume), []
        for channel, a, b in zip(values, low, high, strict=True):
            top = b if b > a else a + 1
            row.append(np.histogram(channel.clip(a, top), _BINS, (a, top))[0] / channel.size)
        rows.append(np.concatenate([*row, [log_volume(volume)]]))
    return np.stack(rows)


def _inside(volume: StoredVolume) -> np.ndarray:
    """Intensities [channels, n] of the foreground, or of everything where there is none."""
    foreground, voxels = volume.read_foreground(), volume.read()
    return voxels[:, foreground] if foreground.any() else voxels.reshape(len(voxels), -1)
