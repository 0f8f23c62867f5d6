"""A store at a glance: one slice of each volume in a picture or on a page, and how its values are
spread."""

from collections.abc import Iterable, Sequence

import numpy as np

from wavespark.pages.markup import Html, tag
from wavespark.pages.page import page
from wavespark.pages.planes import PLANES
from wavespark.pages.png import data_uri, png
from wavespark.prepare.stored import StoredVolume

_SHADES = (0.0, 0.995)
"""Quantiles of a slice that become black and white."""


def axial_slice(volume: StoredVolume) -> np.ndarray:
    """The axial slice through the middle, first channel: float32 [D, H]; only the chunks that it
    touches are read."""
    depth, height, width = volume.size
    return volume.read((0, 0, width // 2), (depth, height, 1))[0, :, :, 0]


def mosaic(volumes: Sequence[StoredVolume], *, at_most: int = 48, tile: int = 128) -> np.ndarray:
    """One slice a volume, side by side, as on a light box: the patient's right is at the left, the
    front is up.

    Args:
        volumes: what to show; evenly picked where there are more than `at_most`.
        at_most: tiles.
        tile: pixels along a side; slices are fitted in with their proportions in mm.

    Returns:
        uint8 [rows, columns].
    """
    picked = _picked(volumes, at_most)
    across = max(1, int(np.ceil(np.sqrt(len(picked)))))
    picture = np.zeros((max(1, -(-len(picked) // across)) * tile, across * tile), np.uint8)
    for number, volume in enumerate(picked):
        row, column = divmod(number, across)
        picture[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = _tile(volume, tile)
    return picture


def mosaic_page(volumes: Sequence[StoredVolume], *, at_most: int = 200, tile: int = 192) -> Html:
    """The slices of `mosaic` on a page of its own, each with its id, kind, size and spacing: HTML
    without scripts or links.

    Args:
        volumes: what to show; evenly picked where there are more than `at_most`.
        at_most: volumes on the page, which holds about 20 kB of each.
        tile: pixels along a side.
    """
    picked = _picked(volumes, at_most)
    figures = [_figure(volume, tile) for volume in picked]
    title = f"{len(picked)} of {len(volumes)} volumes" if len(picked) < len(volumes) else f"{len(volumes)} volumes"
    words = tag("p", "The middle axial slice of each volume, the patient's right on the left, anterior up.")
    return page("wavespark: store", tag("header", tag("h1", title), words), tag("main", *figures, class_="mosaic"))


def _figure(volume: StoredVolume, tile: int) -> Html:
    size, spacing = (" x ".join(format(x, ".4g") for x in xs) for xs in (volume.size, volume.spacing))
    words = f"{volume.id} · {volume.modality} {volume.contrast or '-'} · {size} at {spacing} mm"
    picture = tag("img", alt=words, src=data_uri(png(_tile(volume, tile))))
    return tag("figure", picture, tag("figcaption", words))


def _picked(volumes: Sequence[StoredVolume], at_most: int) -> list[StoredVolume]:
    places = np.linspace(0, len(volumes) - 1, min(at_most, len(volumes)))
    return [volumes[i] for i in np.unique(places.round().astype(int))]


def _tile(volume: StoredVolume, tile: int) -> np.ndarray:
    image = axial_slice(volume)
    low, high = np.quantile(image, _SHADES)
    grey = np.clip((image - low) / max(high - low, 1e-9), 0, 1) * 255
    extent = np.array(image.shape) * volume.spacing[:2]
    pixels = np.maximum(1, (extent / extent.max() * tile).astype(int))
    x, y = (
        np.minimum((np.arange(p) + 0.5) * n / p, n - 1).astype(int) for p, n in zip(pixels, image.shape, strict=True)
    )
    fitted = PLANES[0].cut(grey[x][:, y, None], 0)
    out = np.zeros((tile, tile), np.uint8)
    top, left = (tile - fitted.shape[0]) // 2, (tile - fitted.shape[1]) // 2
    out[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return out


def histogram(volumes: Iterable[StoredVolume], edges: np.ndarray) -> np.ndarray:
    """Share of the foreground's values between edges, over one slice of each volume: [channels,
    len(edges) - 1]."""
    counts: np.ndarray | float = 0.0
    for volume in volumes:
        depth, height, width = volume.size
        box = (0, 0, width // 2), (depth, height, 1)
        values, head = volume.read(*box), volume.read_foreground(*box)
        inside = np.clip(values[:, head], edges[0], edges[-1])
        counts = counts + np.stack([np.histogram(channel, edges)[0] for channel in inside])
    total = np.sum(counts, axis=-1, keepdims=True)
    return np.asarray(counts / np.maximum(total, 1))
