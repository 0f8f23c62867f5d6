"""Compressed frames judged by their own bytes: which codec, which size, where they end.

A compressed frame says its own size, and decoders allocate what it says: it must agree with the
header before any decoder sees it. Sources: DICOM PS3.5 8.2, A.4 and G, ITU-T T.81 B.2.2 (JPEG),
T.87 C.2 (JPEG-LS), T.800 A.5.1 (JPEG 2000).
"""

RLE = "1.2.840.10008.1.2.5"
JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
JPEG_LS = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81))
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))
COMPRESSED = (RLE, *JPEG, *JPEG_LS, *JPEG_2000)
"""Transfer syntaxes of compressed pixels that can be read."""

_END = b"\xff\xd9"  # end mark of JPEG, JPEG-LS and JPEG 2000 alike; neither can have it among its compressed bytes
_START_2000 = b"\xff\x4f\xff\x51"
_HIGH_THROUGHPUT = 1 << 14  # of Rsiz (T.814 A.3)


def syntax_of(data: bytes, declared: str) -> str:
    """The transfer syntax that the first bytes of a frame show; the declared one where they agree
    or tell nothing.

    Args:
        data: the first bytes of the frame, 4096 are enough for any header without large application
            segments.
        declared: transfer syntax UID of the file.
    """
    at = data.find(_START_2000, 0, 256)
    if at >= 0:
        if declared in JPEG_2000:
            return declared
        high_throughput = int.from_bytes(data[at + 6 : at + 8], "big") & _HIGH_THROUGHPUT
        return JPEG_2000[4] if high_throughput else JPEG_2000[1]
    if data[:2] == b"\xff\xd8":
        mark = _frame_header(data)[0]
        by_mark = {0xF7: JPEG_LS, 0xC0: JPEG[:1], 0xC1: JPEG[1:2], 0xC3: JPEG[2:]}.get(mark or 0)
        return declared if by_mark is None or declared in by_mark else by_mark[-1]
    segments = int.from_bytes(data[:4], "little")
    if declared != RLE and 1 <= segments <= 15 and data[4:8] == b"\x40\x00\x00\x00":
        return RLE
    return declared


def starts_frame(data: bytes) -> bool:
    """True if a fragment begins with the start mark of JPEG, JPEG-LS or JPEG 2000 (bare or in its
    file format)."""
    return data[:2] == b"\xff\xd8" or data[:4] == _START_2000 or data[4:8] == b"jP  "


def trimmed(data: bytes, syntax: str) -> bytes | None:
    """The frame up to its end mark, without what was padded behind it; None if it has none.

    RLE has no mark.
    """
    if syntax == RLE:
        return data
    end = data.rfind(_END)
    return None if end < 0 else data[: end + 2]


def size_of(data: bytes, syntax: str) -> tuple[int, int] | None:
    """Rows and columns that a frame of one component states, None if it does not."""
    if syntax in JPEG_2000:
        return _jpeg_2000_size(data, data.find(_START_2000))
    mark, at = _frame_header(data)
    if mark is None or data[at + 9] != 1:
        return None
    rows, columns = (int.from_bytes(data[n : n + 2], "big") for n in (at + 5, at + 7))
    return rows, columns


def _jpeg_2000_size(data: bytes, start: int) -> tuple[int, int] | None:
    """Rows and columns of the SIZ segment."""
    if start < 0 or len(data) < start + 42:
        return None
    right, bottom, left, top = (int.from_bytes(data[n : n + 4], "big") for n in range(start + 8, start + 24, 4))
    components = int.from_bytes(data[start + 40 : start + 42], "big")
    return (bottom - top, right - left) if components == 1 else None


def _frame_header(data: bytes) -> tuple[int | None, int]:
    """The mark of the frame header (SOF0 to SOF15, or SOF55 of JPEG-LS) and where it lies; None if
    there is none."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        mark = data[at + 1]
        if mark == 0xFF:
            at += 1
        elif mark == 0xF7 or (0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC)):
            return mark, at
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None, at
