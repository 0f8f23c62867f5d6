"""A store at a glance: one slice of each volume in a picture or on a page, and how its values are spread."""

import base64
import html
import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from wavespark.prepare.stored import StoredVolume

_SHADES = (0.0, 0.995)
"""Quantiles of a slice that become black and white."""

_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em;background:#111;color:#ddd}"
    "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(192px,1fr));gap:12px}"
    "figure{margin:0}img{width:100%;image-rendering:auto;background:#000}figcaption{font-size:12px;overflow-wrap:anywhere}"
)


def axial_slice(volume: StoredVolume) -> np.ndarray:
    """The axial slice through the middle, first channel: float32 [D, H]; only the chunks that it touches are read."""
    depth, height, width = volume.size
    return volume.read((0, 0, width // 2), (depth, height, 1))[0, :, :, 0]


def mosaic(volumes: Sequence[StoredVolume], *, at_most: int = 48, tile: int = 128) -> np.ndarray:
    """One slice a volume, side by side, as on a light box: the patient's right is at the left, the front is up.

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


def mosaic_page(volumes: Sequence[StoredVolume], *, at_most: int = 200, tile: int = 192) -> str:
    """The slices of `mosaic` on a page of its own, each with its id, kind, size and spacing: HTML without scripts or links.

    Args:
        volumes: what to show; evenly picked where there are more than `at_most`.
        at_most: volumes on the page, which holds about 20 kB of each.
        tile: pixels along a side.
    """
    picked = _picked(volumes, at_most)
    figures = []
    for volume in picked:
        picture = base64.b64encode(png(_tile(volume, tile))).decode()
        size, spacing = (" x ".join(format(x, ".4g") for x in xs) for xs in (volume.size, volume.spacing))
        words = html.escape(f"{volume.id} · {volume.modality} {volume.contrast or '-'} · {size} at {spacing} mm")
        figures.append(
            f'<figure><img alt="{words}" src="data:image/png;base64,{picture}"><figcaption>{words}</figcaption></figure>'
        )
    shown = f"{len(picked)} of {len(volumes)} volumes" if len(picked) < len(volumes) else f"{len(volumes)} volumes"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>wavespark: store</title>'
        f"<style>{_STYLE}</style></head><body><h1>{shown}</h1><p>The middle axial slice, the patient's right at the left.</p>"
        f"<main>{''.join(figures)}</main></body></html>\n"
    )


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
    fitted = grey[x][:, y].T[::-1, ::-1]  # columns: right to left; rows: front to back
    out = np.zeros((tile, tile), np.uint8)
    top, left = (tile - fitted.shape[0]) // 2, (tile - fitted.shape[1]) // 2
    out[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return out


def histogram(volumes: Iterable[StoredVolume], edges: np.ndarray) -> np.ndarray:
    """Share of the foreground's values between edges, over one slice of each volume: [channels, len(edges) - 1]."""
    counts: np.ndarray | float = 0.0
    for volume in volumes:
        depth, height, width = volume.size
        box = (0, 0, width // 2), (depth, height, 1)
        values, head = volume.read(*box), volume.read_foreground(*box)
        inside = np.clip(values[:, head], edges[0], edges[-1])
        counts = counts + np.stack([np.histogram(channel, edges)[0] for channel in inside])
    total = np.sum(counts, axis=-1, keepdims=True)
    return np.asarray(counts / np.maximum(total, 1))


def png(grey: np.ndarray) -> bytes:
    """A picture as a PNG file (ISO/IEC 15948): 8-bit grey, no optional parts.

    Args:
        grey: uint8 [rows, columns].
    """

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows, columns = grey.shape
    lines = np.pad(grey, ((0, 0), (1, 0))).tobytes()  # each line begins with its filter: 0, none
    header = part(b"IHDR", struct.pack(">2I5B", columns, rows, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", zlib.compress(lines, 6)) + part(b"IEND", b"")
