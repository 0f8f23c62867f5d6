"""Stored numbers of DICOM frames: native bytes read here, compressed ones by pydicom's decoders
(DICOM PS3.5 8 and A.4)."""

from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO

import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.codestreams import COMPRESSED, RLE, size_of, trimmed
from wavespark.volumes.dicom_file import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, open_pixels
from wavespark.volumes.dicom_header import Header
from wavespark.volumes.fragments import find_frames, read_frame
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.settings import ReadingSettings

_NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
_LEAST_FRAME = 8  # bytes of the item that holds a compressed frame
_TRUNCATED = "its pixels end early: copy it again"


def check_pixels(header: Header, settings: ReadingSettings) -> None:
    """Refuse a file whose pixels cannot be read, before reading them.

    Raises:
        VolumeError: `too_large`, `unsupported_transfer_syntax`, `truncated_pixel_data` or
            `corrupt`.
    """
    count = header.frames * header.shape[0] * header.shape[1]
    if count > settings.max_voxels:
        limit = settings.max_voxels
        raise VolumeError("too_large", f"one file declares {count} pixels and the limit is {limit}: raise max_voxels")
    syntax = header.meta.syntax
    native = syntax in _NATIVE
    if not native and syntax not in COMPRESSED:
        sentence = "its pixels are compressed as video or in an unknown way: convert it"
        raise VolumeError("unsupported_transfer_syntax", sentence)
    if not native and not _has_decoder(syntax):
        sentence = "its pixels are compressed. Type: pip install 'wavespark[dicom]', and read it again"
        raise VolumeError("unsupported_transfer_syntax", sentence)
    if native and header.pixels.length is None:
        raise VolumeError("corrupt", "it says that its pixels are not compressed, and they are in fragments")
    declared = header.pixels.available if header.pixels.length is None else header.pixels.length
    needed = header.frames * (_frame_bytes(header) if native else _LEAST_FRAME)
    if min(declared, header.pixels.available) < needed:
        raise VolumeError("truncated_pixel_data", f"{needed} bytes of pixels are needed: copy or export it again")


def read_frames(path: bytes, header: Header, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Stored numbers of the wanted frames, in stored order: (frame, int or uint [rows, columns]).

    Raises:
        VolumeError: `truncated_pixel_data`, `decode_failed`, `unreadable_slice`.
    """
    with open_pixels(path, header.meta) as stream:
        if header.meta.syntax in _NATIVE:
            yield from _native(stream, header, wanted)
        else:
            yield from _compressed(stream, header, set(wanted))


def _frame_bytes(header: Header) -> int:
    return header.shape[0] * header.shape[1] * header.bits // 8


def _native(stream: BinaryIO, header: Header, wanted: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    size = _frame_bytes(header)
    big = header.meta.syntax == BIG_ENDIAN
    dtype = np.dtype(f"{'>' if big else '<'}{'i' if header.signed else 'u'}{header.bits // 8}")
    for frame in sorted(wanted):
        stream.seek(header.pixels.offset + frame * size)
        # Eight-bit pixels in big-endian words lie swapped in pairs, so the last one may need a byte
        # more.
        swapped = big and header.bits == 8 and header.pixels.vr == b"OW"
        data = stream.read(size + size % 2 if swapped else size)
        if len(data) < size:
            raise VolumeError("truncated_pixel_data", _TRUNCATED)
        if swapped:
            data = np.frombuffer(data[: len(data) // 2 * 2], "<u2").byteswap().tobytes()[:size]
        yield frame, _significant(np.frombuffer(data, dtype).reshape(header.shape), header)


def _compressed(stream: BinaryIO, header: Header, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    syntax = header.meta.syntax
    decoder = get_decoder(syntax)
    options: dict[str, Any] = {
        "rows": header.shape[0],
        "columns": header.shape[1],
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "pixel_representation": int(header.signed),
        "bits_allocated": header.bits,
        "bits_stored": header.stored_bits,
        "pixel_keyword": "PixelData",
    }
    end = header.pixels.offset + header.pixels.available
    frames = find_frames(stream, header.pixels.offset, end, header.frames)
    for frame in sorted(wanted):
        data = _checked(read_frame(stream, frames[frame]), header)
        with unquoted("decode_failed", "its compressed pixels cannot be decoded: export the series uncompressed"):
            stored, _ = decoder.as_array(encapsulate([data]), raw=True, **options)
            stored = np.asarray(stored).reshape(header.shape)
        kind = np.dtype(f"{'i' if header.signed else 'u'}{header.bits // 8}")
        yield frame, _significant(stored.astype(kind, copy=False), header)


def _significant(stored: np.ndarray, header: Header) -> np.ndarray:
    """Only the stored bits, with their sign: old writers keep overlays, or nothing sensible, in the
    others."""
    unused = header.bits - header.stored_bits
    if not unused:
        return stored
    return (stored.astype(stored.dtype.newbyteorder("="), copy=False) << unused) >> unused


@cache
def _has_decoder(syntax: str) -> bool:
    from pydicom.pixels.decoders.base import get_decoder

    with unquoted("unsupported_transfer_syntax", "its pixels are compressed in an unknown way: convert it"):
        return bool(get_decoder(syntax).is_available)


def _checked(data: bytes, header: Header) -> bytes:
    """A compressed frame without what follows its end mark, refused if its own size is not the
    header's."""
    syntax = header.meta.syntax
    if syntax != RLE and size_of(data, syntax) != header.shape:
        sentence = "its compressed pixels have another size than its header says: export it again"
        raise VolumeError("decode_failed", sentence)
    whole = trimmed(data, syntax)
    if whole is None:
        raise VolumeError("truncated_pixel_data", _TRUNCATED)
    return whole
