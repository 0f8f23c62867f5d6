"""Encapsulated pixel data: fragments to frames (DICOM PS3.5 A.4).

The offset table is often empty or wrong, a frame may have several fragments, and writers append
empty ones: frames are found by what the fragments hold.
"""

from collections.abc import Sequence
from typing import BinaryIO

from wavespark.errors import VolumeError
from wavespark.volumes.codestreams import starts_frame

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_TRUNCATED = VolumeError("truncated_pixel_data", "its pixels end early: copy it again")

Fragment = tuple[int, int]
"""Byte where a fragment begins, and its length."""


def find_frames(stream: BinaryIO, offset: int, end: int, frames: int) -> list[list[Fragment]]:
    """The fragments of each frame.

    Args:
        stream: the file.
        offset: where the value of the pixel data begins.
        end: where the file ends.
        frames: how many frames the header declares.

    Raises:
        VolumeError: `truncated_pixel_data`, or `decode_failed` if the fragments do not make so many
            frames.
    """
    items = _items(stream, offset, end, frames)
    if not items:
        raise _TRUNCATED
    table, fragments = items[0], [item for item in items[1:] if item[1]]
    if frames == 1 and fragments:
        return [fragments]
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    if len(fragments) < frames:
        raise _TRUNCATED
    starts = _by_table(stream, table, fragments, frames) or _by_marks(stream, fragments)
    if len(starts) != frames:
        sentence = (
            f"{frames} frames are declared and its {len(fragments)} fragments do not make so many: export it again"
        )
        raise VolumeError("decode_failed", sentence)
    return [fragments[a:b] for a, b in zip(starts, [*starts[1:], len(fragments)], strict=True)]


def read_frame(stream: BinaryIO, fragments: Sequence[Fragment]) -> bytes:
    """The bytes of one frame."""
    parts = []
    for start, length in fragments:
        stream.seek(start)
        parts.append(stream.read(length))
    return b"".join(parts)


def _items(stream: BinaryIO, offset: int, end: int, frames: int) -> list[Fragment]:
    """The offset table and the fragments, up to the delimiter, or to what is no item any more once
    all frames are there."""
    items: list[Fragment] = []
    at = offset
    while at + 8 <= end:
        stream.seek(at)
        head = stream.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != _ITEM or at + 8 + length > end:
            if head[:4] == _END or len(items) > frames:
                break
            raise _TRUNCATED
        items.append((at + 8, length))
        at += 8 + length
    return items


def _by_table(stream: BinaryIO, table: Fragment, fragments: list[Fragment], frames: int) -> list[int]:
    """Index of each frame's first fragment by the offset table, empty if that is not right."""
    start, length = table
    if length != 4 * frames:
        return []
    stream.seek(start)
    data = stream.read(length)
    base = start + length
    index = {begin - 8 - base: n for n, (begin, _) in enumerate(fragments)}
    offsets = [int.from_bytes(data[n : n + 4], "little") for n in range(0, length, 4)]
    starts = [index[o] for o in offsets if o in index]
    return starts if len(starts) == frames and starts[0] == 0 and starts == sorted(set(starts)) else []


def _by_marks(stream: BinaryIO, fragments: list[Fragment]) -> list[int]:
    """Index of each fragment that begins with a start mark."""
    starts = []
    for n, (begin, _) in enumerate(fragments):
        stream.seek(begin)
        if starts_frame(stream.read(8)):
            starts.append(n)
    return starts
