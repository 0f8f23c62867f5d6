"""One DICOM file opened safely: its transfer syntax, the allowed tags, and where its pixels lie.

pydicom parses the data set, after this module has found the encoding and bounded what may be
inflated (pydicom 3 took 2.1 GB for a deflated file of 1 MB). The declared transfer syntax is
checked against the bytes: old exports and anonymisers write a wrong one. Source: DICOM PS3.5
(encoding) and PS3.10 (file format).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import SEEK_END
from typing import BinaryIO, cast

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from wavespark.errors import VolumeError
from wavespark.volumes.codestreams import COMPRESSED, syntax_of
from wavespark.volumes.files import Inflated, OpenFile, open_regular, unpack
from wavespark.volumes.privacy import unquoted

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_MEDIA_CLASS = 0x00020002
_TRANSFER_SYNTAX = 0x00020010
_MAX_META = 1 << 16
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_FIRST_FRAGMENT = 4096  # bytes of it that show the codec
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Meta:
    """File meta information, and how the data set is encoded."""

    syntax: str
    """Transfer syntax UID of the pixels, as the bytes show it."""
    encoding: str
    """`IMPLICIT`, `EXPLICIT` or `BIG_ENDIAN`: how the data set is written."""
    deflated: bool
    """True if the data set is compressed as a whole."""
    directory: bool
    """True for a DICOMDIR, which lists files and is no image."""
    media_class: str
    """MediaStorageSOPClassUID, empty if there is none."""
    preamble: bool
    """False for a bare data set, as old software writes it."""
    start: int
    """Byte where the data set begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pixels:
    """Location of the pixel data in the (inflated) file."""

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
    """Allowed tags of one file, without its pixels."""

    dataset: Dataset
    meta: Meta
    pixels: Pixels | None


def open_dicom(path: bytes, tags: Sequence[int]) -> DicomFile:
    """The allowed tags of a file, and where its pixels are.

    Raises:
        VolumeError: `not_dicom`, `corrupt`, `truncated`, `too_large`, or those of `open_regular`.
    """
    with _opened(path) as file:
        meta = _read_meta(file)
        if meta.directory:
            return DicomFile(dataset=Dataset(), meta=meta, pixels=None)
        stream = plain_stream(file, meta)
        implicit = meta.encoding == IMPLICIT
        little = meta.encoding != BIG_ENDIAN
        with unquoted("corrupt", "its DICOM data set cannot be parsed: copy or export it again"):
            dataset = read_dataset(stream, implicit, little, stop_when=_is_pixels, specific_tags=list(tags))
        if not len(dataset):
            raise VolumeError("corrupt", "its DICOM data set holds none of the elements of an image")
        pixels = _find_pixels(stream, implicit, little)
        if pixels is not None:
            meta = replace(meta, syntax=_pixel_syntax(stream, pixels, meta))
        return DicomFile(dataset=dataset, meta=meta, pixels=pixels)


@contextmanager
def open_pixels(path: bytes, meta: Meta) -> Iterator[BinaryIO]:
    """The stream that `Pixels.offset` refers to.

    Raises:
        VolumeError: as `open_dicom`.
    """
    with _opened(path) as file:
        yield plain_stream(file, meta)


def plain_stream(file: OpenFile, meta: Meta) -> BinaryIO:
    """The data set's bytes: the file itself at its start, or what a deflated file holds, within
    bounds."""
    file.seek(meta.start)
    return cast(BinaryIO, unpack(Inflated(file, wbits=-15), file.size) if meta.deflated else file)


def _opened(path: bytes) -> OpenFile:
    """The file, or what a gzipped file (`.dcm.gz`) holds."""
    file = open_regular(path)
    start = file.read(2)
    file.seek(0)
    if start != b"\x1f\x8b":
        return file
    with file:
        return unpack(Inflated(file), file.size)


def _is_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    """True where parsing must stop; group lengths and offset tables come before the pixels and are
    passed over."""
    return int(tag) >= _PIXELS[0]  # comparing whole numbers: a tag compares slowly


def _read_meta(file: OpenFile) -> Meta:
    """Group 2, always explicit and little-endian; a bare data set is judged by its first
    element."""
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
    encoding = _encoding(head[at : at + 8])
    declared = values.get(_TRANSFER_SYNTAX) or encoding
    plain = head[at : at + 2] == b"\x08\x00" and head[at + 4 : at + 6] in _VRS
    deflated = declared == DEFLATED and not plain
    media_class = values.get(_MEDIA_CLASS, "")
    return Meta(
        syntax=encoding if declared in (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED) and not deflated else declared,
        encoding=EXPLICIT if deflated else encoding,
        deflated=deflated,
        directory=media_class == _DIRECTORY_CLASS or head[at : at + 2] == b"\x04\x00",
        media_class=media_class,
        preamble=preamble,
        start=at,
    )


def _encoding(element: bytes) -> str:
    """Detect the encoding of a data set from its first element."""
    if element[:1] == b"\x00" and element[1:2] != b"\x00":
        return BIG_ENDIAN
    return EXPLICIT if element[4:6] in _VRS else IMPLICIT


def _pixel_syntax(stream: BinaryIO, pixels: Pixels, meta: Meta) -> str:
    """Pixels of a stated length are not compressed; fragments show their codec themselves."""
    if meta.deflated:
        return meta.syntax
    if pixels.length is not None:
        return meta.encoding if meta.syntax in COMPRESSED else meta.syntax
    stream.seek(pixels.offset)
    table = stream.read(8)
    stream.seek(pixels.offset + 8 + int.from_bytes(table[4:8], "little") + 8)
    return syntax_of(stream.read(_FIRST_FRAGMENT), meta.syntax)


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
    if tag not in _PIXELS:
        return None
    offset = stream.tell() - len(head) + size
    end = stream.seek(0, SEEK_END)
    undefined = length == 0xFFFFFFFF
    return Pixels(tag=tag, vr=vr, offset=offset, length=None if undefined else length, available=max(end - offset, 0))
