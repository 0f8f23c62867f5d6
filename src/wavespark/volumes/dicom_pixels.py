"""Stored numbers of DICOM frames: native bytes read here, compressed ones by pydicom's decoders.

A compressed frame says its own size, and decoders allocate what it says: it must agree with the header before any
decoder sees it. Sources: DICOM PS3.5 8.2 and A.4, ITU-T T.81 B.2.2, ITU-T T.800 A.5.1.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO

import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.dicom_file import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, open_pixels
from wavespark.volumes.dicom_header import Header
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.settings import ReadingSettings

_NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
_RLE = "1.2.840.10008.1.2.5"
_JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81))
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))
_LEAST_FRAME = 8  # bytes of the item that holds a compressed frame
_END = b"\xff\xd9"  # end mark of JPEG, JPEG-LS and JPEG 2000 alike
_TRUNCATED = "its pixels end early: copy it again"


def check_pixels(header: Header, settings: ReadingSettings) -> None:
    """What can be refused without reading pixels.

    Raises:
        VolumeError: `too_large`, `unsupported_transfer_syntax`, `truncated_pixel_data` or `corrupt`.
    """
    count = header.frames * header.shape[0] * header.shape[1]
    if count > settings.max_voxels:
        limit = settings.max_voxels
        raise VolumeError("too_large", f"one file declares {count} pixels and the limit is {limit}: raise max_voxels")
    syntax = header.meta.syntax
    native = syntax in _NATIVE
    if not native and syntax not in (_RLE, *_JPEG, *_JPEG_2000):
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
        # Eight-bit pixels in big-endian words lie swapped in pairs, so the last one may need a byte more.
        swapped = big and header.bits == 8 and header.pixels.vr == b"OW"
        data = stream.read(size + size % 2 if swapped else size)
        if len(data) < size:
            raise VolumeError("truncated_pixel_data", _TRUNCATED)
        if swapped:
            data = np.frombuffer(data[: len(data) // 2 * 2], "<u2").byteswap().tobytes()[:size]
        yield frame, _significant(np.frombuffer(data, dtype).reshape(header.shape), header)


def _compressed(stream: BinaryIO, header: Header, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    from pydicom.encaps import encapsulate, generate_frames
    from pydicom.pixels.decoders.base import get_decoder

    syntax = header.meta.syntax
    decoder = get_decoder(syntax)
    stream.seek(header.pixels.offset)
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
    frames = generate_frames(stream, number_of_frames=header.frames)
    for frame in range(max(wanted) + 1):
        with unquoted("truncated_pixel_data", _TRUNCATED):
            data = next(frames)
        if frame not in wanted:
            continue
        if syntax != _RLE:
            _check_codestream(data, header)
        with unquoted("decode_failed", "its compressed pixels cannot be decoded: export the series uncompressed"):
            stored, _ = decoder.as_array(encapsulate([data]), raw=True, **options)
            stored = np.asarray(stored).reshape(header.shape)
        kind = np.dtype(f"{'i' if header.signed else 'u'}{header.bits // 8}")
        yield frame, _significant(stored.astype(kind, copy=False), header)


def _significant(stored: np.ndarray, header: Header) -> np.ndarray:
    """Only the stored bits, with their sign: old writers keep overlays, or nothing sensible, in the others."""
    unused = header.bits - header.stored_bits
    if not unused:
        return stored
    return (stored.astype(stored.dtype.newbyteorder("="), copy=False) << unused) >> unused


@cache
def _has_decoder(syntax: str) -> bool:
    from pydicom.pixels.decoders.base import get_decoder

    with unquoted("unsupported_transfer_syntax", "its pixels are compressed in an unknown way: convert it"):
        return bool(get_decoder(syntax).is_available)


def _check_codestream(data: bytes, header: Header) -> None:
    """Refuses a compressed frame whose own size is not the header's, or that lacks its end mark."""
    start = data.find(b"\xff\x4f\xff\x51") if header.meta.syntax in _JPEG_2000 else 0
    size = _jpeg_2000_size(data, start) if header.meta.syntax in _JPEG_2000 else _jpeg_size(data)
    if size != header.shape:
        sentence = "its compressed pixels have another size than its header says: export it again"
        raise VolumeError("decode_failed", sentence)
    if _END not in data[-64:]:
        raise VolumeError("truncated_pixel_data", _TRUNCATED)


def _jpeg_2000_size(data: bytes, start: int) -> tuple[int, int] | None:
    """Rows, columns of the SIZ segment; one component."""
    if start < 0 or len(data) < start + 42:
        return None
    right, bottom, left, top = (int.from_bytes(data[n : n + 4], "big") for n in range(start + 8, start + 24, 4))
    components = int.from_bytes(data[start + 40 : start + 42], "big")
    return (bottom - top, right - left) if components == 1 else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Rows, columns of the frame header (SOF0..15, or SOF55 of JPEG-LS); one component."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        mark = data[at + 1]
        if mark == 0xFF:
            at += 1
        elif mark == 0xF7 or (0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC)):
            rows, columns = (int.from_bytes(data[n : n + 2], "big") for n in (at + 5, at + 7))
            return (rows, columns) if data[at + 9] == 1 else None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
