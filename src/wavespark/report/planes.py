"""Slices as a radiologist expects them, and as small PNG pictures.

Voxel axes D, H, W run towards the patient's right, anterior and superior (RAS). Shown by radiological convention:
on axial and coronal planes the patient's right is on the left of the picture; on sagittal planes anterior is on the
left; anterior (axial) or superior is up.
"""

import base64
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wavespark.report.examples import Case, Flags

Bytes = npt.NDArray[np.uint8]
_LONGEST_SIDE = 256
"""Pixels; longer sides are thinned out, to keep the page small."""
_HIDDEN = (92, 116, 158)
"""Colour of what the encoder did not see; no tissue has one."""
_RAMP = ((0, 0, 0), (74, 26, 44), (213, 94, 0), (230, 159, 0), (240, 228, 66), (255, 255, 240))
"""Error colours from nothing to much: rising lightness, the warm half of the Okabe-Ito palette."""


@dataclass(frozen=True)
class Plane:
    """One of the three anatomical planes."""

    name: str
    axis: int
    """The voxel axis that it is perpendicular to."""
    left: str
    """What lies at the left edge of the picture."""
    right: str
    top: str
    bottom: str

    def cut(self, volume_DHW: npt.NDArray, position: int) -> npt.NDArray:
        """The slice at `position` as [rows, columns] of a picture: rows from the top, columns from the left."""
        return np.take(volume_DHW, position, axis=self.axis).T[::-1, ::-1]

    def aspect(self, shape: tuple[int, ...], spacing: tuple[float, float, float]) -> float:
        """Width over height in mm."""
        across, up = (a for a in range(3) if a != self.axis)
        return shape[across] * spacing[across] / (shape[up] * spacing[up])


PLANES = (
    Plane("axial", 2, left="R", right="L", top="A", bottom="P"),
    Plane("coronal", 1, left="R", right="L", top="S", bottom="I"),
    Plane("sagittal", 0, left="A", right="P", top="S", bottom="I"),
)


def position(case: Case, plane: Plane) -> int:
    """The slice to show: where hidden and visible foreground are both plentiful; nearest the middle if several are.

    What was predicted plays no part.
    """
    others = tuple(a for a in range(3) if a != plane.axis)
    hidden = np.count_nonzero(case.scored, axis=others)
    seen = np.count_nonzero(case.visible & case.foreground, axis=others)
    worth = np.minimum(hidden, seen)
    candidates = np.flatnonzero(worth >= 0.95 * worth.max()) if worth.max() else np.arange(len(worth))
    return int(candidates[np.argmin(np.abs(candidates - (len(worth) - 1) / 2))])


def window(case: Case, channel: int = 0) -> tuple[float, float]:
    """The values shown as black and white in every picture of a case.

    They are percentiles 0.5 and 99.5 of the original's foreground.
    """
    values = case.original[channel][case.foreground]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(p) for p in np.percentile(values, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1.0)


def grey(pixels: npt.NDArray, limits: tuple[float, float], hidden: Flags | None = None) -> Bytes:
    """Palette indices: 0-254 from black to white, 255 where `hidden`."""
    indices = _scaled(pixels, *limits)
    return indices if hidden is None else np.where(hidden, np.uint8(255), indices)


def heat(pixels: npt.NDArray, most: float) -> Bytes:
    """Palette indices of an error picture: 0 for none, 254 for `most` or more."""
    return _scaled(pixels, 0.0, most)


def _scaled(pixels: npt.NDArray, low: float, high: float) -> Bytes:
    unit = (pixels.astype(np.float64) - low) / max(high - low, 1e-12)
    return np.rint(254 * np.clip(np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)).astype(np.uint8)


def grey_palette() -> Bytes:
    """[256, 3]: greys, and the colour of hidden cells."""
    palette = np.repeat(np.rint(np.linspace(0, 255, 255)).astype(np.uint8)[:, None], 3, axis=1)
    return np.concatenate([palette, np.array([_HIDDEN], dtype=np.uint8)])


def heat_palette() -> Bytes:
    """[256, 3]: the error colours."""
    anchors = np.array(_RAMP, dtype=np.float64)
    at = np.linspace(0, len(anchors) - 1, 255)
    ramp = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)], axis=1)
    return np.concatenate([np.rint(ramp), np.zeros((1, 3))]).astype(np.uint8)


def png(indices: Bytes, palette: Bytes) -> bytes:
    """A palette PNG (PNG specification, third edition, colour type 3) of [rows, columns] indices."""
    step = -(-max(indices.shape) // _LONGEST_SIDE)
    indices = np.ascontiguousarray(indices[::step, ::step])
    rows, columns = indices.shape
    raw = np.concatenate([np.zeros((rows, 1), dtype=np.uint8), indices], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )


def data_uri(picture: bytes) -> str:
    """The picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
