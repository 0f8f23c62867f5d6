"""Plain bytes of compressed files: gzip, bzip2, xz and zstandard, told by their first bytes and
never more at a time than asked for."""

import bz2
import lzma
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from wavespark.errors import VolumeError
from wavespark.volumes.files import Inflated, OpenFile, Reader
from wavespark.volumes.privacy import unquoted

GZIP, BZIP2, XZ, ZSTANDARD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_CHUNK = 1 << 20
_MOST_MEMORY = 1 << 27  # bytes that a decoder may need for its window
_DAMAGED = "the compressed stream is damaged: copy the file again"


def is_compressed(head: bytes) -> bool:
    """True for the first bytes of a gzip, bzip2, xz or zstandard stream."""
    return head.startswith((GZIP, BZIP2, XZ, ZSTANDARD))


def has_zstandard() -> bool:
    """True if the package that reads zstandard is installed."""
    return find_spec("zstandard") is not None


def plain_reader(file: OpenFile) -> Reader:
    """The plain bytes of a file that is positioned at its start, whether or not it is compressed.

    Raises:
        VolumeError: `unsupported_format` if zstandard is needed and not installed.
    """
    head = file.read(6)
    file.seek(0)
    if head.startswith(GZIP):
        return Inflated(file)
    if head.startswith(BZIP2):
        return Unpacked(file, bz2.BZ2Decompressor, BZIP2)
    if head.startswith(XZ):
        return Unpacked(file, lambda: lzma.LZMADecompressor(memlimit=_MOST_MEMORY), XZ)
    return _Zstandard(file) if head.startswith(ZSTANDARD) else file


class Unpacked:
    """The plain bytes of one or several bzip2 or xz streams in a row."""

    def __init__(self, file: Reader, decoder: Callable[[], Any], mark: bytes) -> None:
        self._file = file
        self._decoder = decoder
        self._mark = mark
        self._stream = decoder()

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end.

        Raises:
            VolumeError: `truncated` or `corrupt`.
        """
        while True:
            if self._stream.eof and not self._next():
                return b""
            data = self._file.read(_CHUNK) if self._stream.needs_input else b""
            if self._stream.needs_input and not data:
                raise VolumeError("truncated", "the compressed stream ends before its end mark: copy the file again")
            with unquoted("corrupt", _DAMAGED):
                plain: bytes = self._stream.decompress(data, size)
            if plain:
                return plain

    def _next(self) -> bool:
        """Begins the stream that follows, if there is one."""
        rest = self._stream.unused_data or self._file.read(_CHUNK)
        if not rest.startswith(self._mark):
            if rest.strip(b"\x00"):
                raise VolumeError("corrupt", _DAMAGED)
            return False
        self._stream = self._decoder()
        self._file = _Chained(rest, self._file)
        return True


class _Chained:
    """Bytes that were read already, then the rest of the file."""

    def __init__(self, first: bytes, file: Reader) -> None:
        self._first = first
        self._file = file

    def read(self, size: int) -> bytes:
        part, self._first = self._first[:size], self._first[size:]
        return part or self._file.read(size)


class _Zstandard:
    """The plain bytes of zstandard frames."""

    def __init__(self, file: OpenFile) -> None:
        try:
            import zstandard
        except ImportError:
            sentence = "it is compressed with zstandard. Type: pip install 'wavespark[formats]', and read it again"
            raise VolumeError("unsupported_format", sentence) from None
        decoder = zstandard.ZstdDecompressor(max_window_size=_MOST_MEMORY)
        self._stream = decoder.stream_reader(file, read_across_frames=True, closefd=False)

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end; a stream that ends early gives fewer bytes than
        its header declares."""
        with unquoted("corrupt", _DAMAGED):
            plain: bytes = self._stream.read(size)
        return plain
