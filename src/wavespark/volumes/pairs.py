"""Pairs of a header and an image file: `.hdr` with `.img`, either of which may be compressed."""

import os

import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.files import drain, open_regular, read_exactly, read_voxels
from wavespark.volumes.streams import plain_reader

_ENDINGS = (b"", b".gz", b".bz2", b".xz", b".zst")
_HEADER, _IMAGE = (b".hdr", b".HDR", b".Hdr"), (b".img", b".IMG", b".Img")


def header_beside(image: bytes) -> bytes | None:
    """The `.hdr` that belongs to an `.img`, None if there is none."""
    return _beside(image, _IMAGE, _HEADER)


def image_beside(header: bytes) -> bytes | None:
    """The `.img` that belongs to a `.hdr`, None if there is none."""
    return _beside(header, _HEADER, _IMAGE)


def read_image(header: bytes, offset: int, dtype: np.dtype, count: int, slope: float, intercept: float) -> np.ndarray:
    """The values of the image file that belongs to a header: float32 [count].

    Raises:
        VolumeError: `not_found` if there is no such file, `truncated`, `corrupt`.
    """
    path = image_beside(header)
    if path is None:
        raise VolumeError("not_found", "the .img file of this header is missing: put both into one folder")
    with open_regular(path) as file:
        reader = plain_reader(file)
        needed = offset + count * dtype.itemsize
        if reader is file and file.size < needed:
            raise VolumeError(
                "truncated", f"{needed} bytes are declared and {file.size} are there: copy the file again"
            )
        read_exactly(reader, offset)
        voxels = read_voxels(reader, dtype, count, slope, intercept)
        if reader is not file:
            drain(reader)
    return voxels


def _beside(path: bytes, have: tuple[bytes, ...], wanted: tuple[bytes, ...]) -> bytes | None:
    stem = next((path[: -len(a + b)] for a in have for b in _ENDINGS if path.endswith(a + b)), None)
    if stem is None:
        return None
    for candidate in (stem + a + b for a in wanted for b in _ENDINGS):
        try:
            open_regular(candidate).close()
        except VolumeError:
            continue
        return candidate
    return None


def is_image_of_pair(path: bytes) -> bool:
    """True for the name of an image file of a pair."""
    return any(os.path.basename(path).lower().endswith(_IMAGE[0] + ending) for ending in _ENDINGS)
