"""One DICOM file opened safely: its transfer syntax, the allowed tags, and where its pixels lie.

pydicom parses the data set, after this module has found the transfer syntax and bounded what may be inflated (pydicom 3
took 2.1 GB for a deflated file of 1 MB). Source: DICOM PS3.5 (encoding) and PS3.10 (file format).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import BinaryIO, cast

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from wavespark.errors import VolumeError
from wavespark.volumes.files import Inflated, RegularFile, open_regular
from wavespark.volumes.privacy import unquoted

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_MEDIA_CLASS = 0x00020002
_TRANSFER_SYNTAX = 0x00020010
_MAX_META = 1 << 16

# A deflated file may grow 256 times, at least to 64 MiB and at most to 512 MiB: no image compresses better, bombs do.
_GROWTH, _GROWTH_LEAST, _GROWTH_MOST = 256, 1 << 26, 1 << 29


@dataclass(frozen=True, kw_only=True, slots=True)
class Meta:
    """What comes before the data set."""

    syntax: str
    """Transfer syntax UID."""
    media_class: str
    """MediaStorageSOPClassUID, empty if there is none."""
    preamble: bool
    """False for a bare data set, as old software writes it."""
    start: int
    """Byte where the data set begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pixels:
    """Where the pixel data lie in the (inflated) file."""

    tag: int
    vr: bytes
    offset: int
    """Byte where the value begins."""
    length: int | None
    """Declared bytes; None if the value is encapsulated in fragments."""
    available: int
    """Bytes from there to the end of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DicomFile:
    """What was read of one file: the allowed tags and no pixels."""

    dataset: Dataset
    meta: Meta
    pixels: Pixels | None


def open_dicom(path: bytes, tags: Sequence[int]) -> DicomFile:
    """The allowed tags of a file, and where its pixels are.

    Raises:
        VolumeError: `not_dicom`, `corrupt`, `truncated`, `too_large`, or those of `open_regular`.
    """
    with open_regular(path) as file:
        meta = _read_meta(file)
        stream = plain_stream(file, meta)
        implicit = meta.syntax == IMPLICIT
        little = meta.syntax != BIG_ENDIAN
        with unquoted("corrupt", "its DICOM data set cannot be parsed: copy or export it again"):
            dataset = read_dataset(stream, implicit, little, stop_when=_is_pixels, specific_tags=list(tags))
        if not len(dataset):
            raise VolumeError("corrupt", "its DICOM data set holds none of the elements of an image")
        return DicomFile(dataset=dataset, meta=meta, pixels=_find_pixels(stream, implicit, little))


@contextmanager
def open_pixels(path: bytes, meta: Meta) -> Iterator[BinaryIO]:
    """The stream that `Pixels.offset` refers to.

    Raises:
        VolumeError: as `open_dicom`.
    """
    with open_regular(path) as file:
        yield plain_stream(file, meta)


def plain_stream(file: RegularFile, meta: Meta) -> BinaryIO:
    """The data set's bytes: the file itself at its start, or what a deflated file holds, within bounds."""
    file.seek(meta.start)
    if meta.syntax != DEFLATED:
        return cast(BinaryIO, file)
    limit = min(max(_GROWTH * file.size, _GROWTH_LEAST), _GROWTH_MOST)
    stream = Inflated(file, wbits=-15)
    plain = BytesIO()
    while part := stream.read(1 << 20):
        plain.write(part)
        if plain.tell() > limit:
            raise VolumeError("too_large", f"a deflated file of {file.size} bytes grows beyond {limit} bytes")
    plain.seek(0)
    return plain


def _is_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag >= 0x7FE00000


def _read_meta(file: RegularFile) -> Meta:
    """Group 2, always explicit and little-endian; a bare data set is judged by its first element."""
    head = file.read(_MAX_META)
    preamble = head[128:132] == b"DICM"
    at = 132 if preamble else 0
    values: dict[int, str] = {}
    while head[at : at + 2] == b"\x02\x00" and len(head) >= at + 12:
        tag = 0x00020000 | int.from_bytes(head[at + 2 : at + 4], "little")
        if head[at + 4 : at + 6] in _LONG_VRS:
            value, length = at + 12, int.from_bytes(head[at + 8 : at + 12], "little")
        else:
            value, length = at + 8, int.from_bytes(head[at + 6 : at + 8], "little")
        values[tag] = head[value : value + min(length, 64)].rstrip(b"\x00 ").decode("ascii", "replace")
        at = value + length
    if len(head) < at + 12:
        raise VolumeError("truncated", "the file ends in its header: copy it again")
    syntax = values.get(_TRANSFER_SYNTAX) or _guess_syntax(head[at : at + 8])
    return Meta(syntax=syntax, media_class=values.get(_MEDIA_CLASS, ""), preamble=preamble, start=at)


def _guess_syntax(element: bytes) -> str:
    if element[:1] == b"\x00" and element[1:2] != b"\x00":
        return BIG_ENDIAN
    return EXPLICIT if re.match(rb"[A-Z]{2}", element[4:6]) else IMPLICIT


def _find_pixels(stream: BinaryIO, implicit: bool, little: bool) -> Pixels | None:
    """Reads the element header that parsing stopped at."""
    head = stream.read(12)
    if len(head) < 8:
        return None
    order = "little" if little else "big"
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)  # type: ignore[arg-type]
    vr = b"OW" if implicit else head[4:6]
    long = not implicit and vr in _LONG_VRS
    if implicit:
        length, size = int.from_bytes(head[4:8], order), 8  # type: ignore[arg-type]
    elif long:
        length, size = int.from_bytes(head[8:12], order), 12  # type: ignore[arg-type]
    else:
        length, size = int.from_bytes(head[6:8], order), 8  # type: ignore[arg-type]
    offset = stream.tell() - len(head) + size
    end = stream.seek(0, SEEK_END)
    undefined = length == 0xFFFFFFFF
    return Pixels(tag=tag, vr=vr, offset=offset, length=None if undefined else length, available=max(end - offset, 0))
