"""PNG pictures from arrays, with or without a palette, and the palettes of the pages."""

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
_HIDDEN = (92, 116, 158)
"""Colour of voxels hidden from the encoder; no tissue has one."""
_RAMP = ((0, 0, 0), (74, 26, 44), (213, 94, 0), (230, 159, 0), (240, 228, 66), (255, 255, 240))
"""Error colours from small to large: rising lightness, the warm half of the Okabe-Ito palette."""


def png(pixels: Bytes, palette: Bytes | None = None) -> bytes:
    """Encode a picture as a PNG file (PNG specification, third edition; colour types 0 and 3, no
    optional parts).

    Args:
        pixels: uint8 [rows, columns]; grey values, or indices into the palette.
        palette: uint8 [at most 256, 3] red, green, blue.

    Returns:
        The bytes of the file.
    """
    rows, columns = pixels.shape
    lines = np.pad(pixels, ((0, 0), (1, 0))).tobytes()  # each line begins with its filter: 0, none
    header = struct.pack(">2I5B", columns, rows, 8, 0 if palette is None else 3, 0, 0, 0)
    colours = b"" if palette is None else _chunk(b"PLTE", palette.tobytes())
    content = colours + _chunk(b"IDAT", zlib.compress(lines, 9)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + content


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def data_uri(picture: bytes) -> str:
    """Return a `data:` address that holds the PNG file."""
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


def thinned(pixels: Bytes, longest: int = 256) -> Bytes:
    """Return every n-th row and column, so that no side exceeds `longest` pixels."""
    step = -(-max(pixels.shape) // longest)
    return np.ascontiguousarray(pixels[::step, ::step])


def grey(values: npt.NDArray, limits: tuple[float, float], hidden: npt.NDArray[np.bool_] | None = None) -> Bytes:
    """Map values to palette indices of `grey_palette`: 0-254 from black to white, 255 where
    `hidden`.

    Args:
        values: of any shape; NaN is black.
        limits: the values shown as black and white.
        hidden: of the same shape.
    """
    indices = _scaled(values, *limits)
    return indices if hidden is None else np.where(hidden, np.uint8(255), indices)


def heat(values: npt.NDArray, largest: float) -> Bytes:
    """Map errors to palette indices of `heat_palette`: 0 for none, 254 for `largest` and more."""
    return _scaled(values, 0.0, largest)


def _scaled(values: npt.NDArray, low: float, high: float) -> Bytes:
    unit = (values.astype(np.float64) - low) / max(high - low, 1e-12)
    return np.rint(254 * np.clip(np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)).astype(np.uint8)


def grey_palette() -> Bytes:
    """Return [256, 3]: 255 greys, and the colour of hidden cells."""
    palette = np.repeat(np.rint(np.linspace(0, 255, 255)).astype(np.uint8)[:, None], 3, axis=1)
    return np.concatenate([palette, np.array([_HIDDEN], dtype=np.uint8)])


def heat_palette() -> Bytes:
    """Return [256, 3]: the error colours, and black."""
    anchors = np.array(_RAMP, dtype=np.float64)
    at = np.linspace(0, len(anchors) - 1, 255)
    ramp = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)], axis=1)
    return np.concatenate([np.rint(ramp), np.zeros((1, 3))]).astype(np.uint8)
