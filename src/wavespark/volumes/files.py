"""Bytes from files that cannot be trusted: regular files only, no link followed, streams bounded
and drained."""

import errno
import io
import os
import stat
import zlib
from typing import Protocol

import numpy as np

from wavespark.errors import VolumeError

_CHUNK = 1 << 20
_SLACK = 1 << 20  # bytes that may follow the voxels (padding, a table of MGH) before a stream counts as a bomb

_REASONS = {
    errno.ENOTDIR: ("not_found", "the file is no longer there"),
    errno.ENOENT: ("not_found", "the file is no longer there"),
    errno.EACCES: ("permission_denied", "the file may not be read by this user: change its permissions"),
    errno.EPERM: ("permission_denied", "the file may not be read by this user: change its permissions"),
    errno.ELOOP: ("not_a_regular_file", "a link is not followed: put the file itself there"),
}


class Reader(Protocol):
    """Sequential source of bytes."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end."""
        ...


def refusal_of(error: OSError) -> VolumeError:
    """The refusal that stands for an operating system's error; quotes no name."""
    reason, sentence = _REASONS.get(
        error.errno or 0, ("corrupt", "the operating system could not read it: check the disk and copy the file again")
    )
    return VolumeError(reason, sentence)


class RegularFile(io.BufferedReader):
    """A file that never prepares memory for more bytes than it has, whatever length a header asks
    for."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(io.FileIO(descriptor, "rb"))
        self.size = os.fstat(descriptor).st_size
        """Bytes in the file."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes; all that are left if it is negative or None."""
        return super().read(self.size if size is None or size < 0 else min(size, self.size))


class MemoryFile(io.BytesIO):
    """Bytes that were unpacked within bounds, read like a file."""

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.getbuffer().nbytes


OpenFile = RegularFile | MemoryFile
"""An open file with `seek`, `read` and `size`."""


def open_regular(path: bytes) -> OpenFile:
    """The file, opened for reading without following a link and without waiting on a pipe; or a
    member of an archive.

    Args:
        path: of a file, or one that goes on below an archive (see `archives`).

    Raises:
        VolumeError: `not_found`, `permission_denied`, `not_a_regular_file` or `corrupt`; those of
            an archive.
    """
    try:
        # O_NONBLOCK because opening a named pipe without a writer waits for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        member = _member(path) if error.errno == errno.ENOTDIR else None
        if member is None:
            raise refusal_of(error) from None
        return member
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise VolumeError("not_a_regular_file", "it is a pipe, device or socket: only regular files are read")
    return RegularFile(descriptor)


def _member(path: bytes) -> MemoryFile | None:
    from wavespark.volumes.archives import open_member  # which opens the archive itself with this module

    return open_member(path)


def sibling(path: bytes, name: str) -> bytes:
    """The path of a file that a header names, which must lie in the header's own folder.

    Raises:
        VolumeError: `outside_root`.
    """
    plain = name.strip().removeprefix("./")
    if not plain or "/" in plain or "\\" in plain or "\x00" in plain or plain in (".", ".."):
        sentence = "its header names a data file in another folder: put both files into one folder"
        raise VolumeError("outside_root", sentence)
    return os.path.join(os.path.dirname(path), plain.encode("utf-8", "surrogateescape"))


class Inflated:
    """The plain bytes of a gzip, zlib or raw deflate stream, read in order; never more at a time
    than asked for.

    Reading on to the end checks the sum and the length of each member, which nibabel does not.

    Args:
        file: the compressed bytes, positioned at their start.
        wbits: 31 for gzip, 15 for zlib, -15 for raw deflate (see `zlib.decompressobj`).
    """

    def __init__(self, file: Reader, wbits: int = 31) -> None:
        self._file = file
        self._wbits = wbits
        self._member = zlib.decompressobj(wbits)
        self._waiting = b""
        self._finished = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end.

        Raises:
            VolumeError: `truncated` or `corrupt`.
        """
        while not self._finished:
            if not self._waiting:
                self._waiting = self._file.read(_CHUNK)
            if self._member.eof and not self._next_member():
                break
            if not self._waiting:
                raise VolumeError("truncated", "the compressed stream ends before its end mark: copy the file again")
            try:
                plain = self._member.decompress(self._waiting, size)
            except zlib.error:
                sentence = "the compressed stream or its checksum is damaged: copy the file again"
                raise VolumeError("corrupt", sentence) from None
            self._waiting = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if plain:
                return plain
        return b""

    def _next_member(self) -> bool:
        """Gzip files may be several streams in a row, and padded with zeros."""
        if self._wbits == 31:
            while self._waiting and not self._waiting.strip(b"\x00"):
                self._waiting = self._file.read(_CHUNK)
            self._waiting = self._waiting.lstrip(b"\x00")
            if self._waiting:
                self._member = zlib.decompressobj(self._wbits)
                return True
        self._finished = True
        return False


_GROWTH, _GROWTH_LEAST, _GROWTH_MOST = 256, 1 << 26, 1 << 30
"""Bounds on decompressed size: 256 times the compressed size, at least to 64 MiB, at most to 1 GiB.
Images grow less, bombs grow more."""


def growth_limit(size: int) -> int:
    """Bytes that `size` compressed bytes may grow to."""
    return min(max(_GROWTH * size, _GROWTH_LEAST), _GROWTH_MOST)


def unpack(reader: Reader, size: int) -> MemoryFile:
    """Decompress a stream of `size` compressed bytes into memory.

    Raises:
        VolumeError: `too_large` if it grows beyond `growth_limit`, `truncated`, `corrupt`.
    """
    limit = growth_limit(size)
    plain = MemoryFile()
    while part := reader.read(_CHUNK):
        plain.write(part)
        if plain.tell() > limit:
            raise VolumeError("too_large", f"a compressed file of {size} bytes grows beyond {limit} bytes")
    plain.seek(0)
    return plain


def read_exactly(reader: Reader, size: int) -> bytes:
    """Exactly `size` bytes.

    Raises:
        VolumeError: `truncated`.
    """
    parts = []
    missing = size
    while missing:
        part = reader.read(min(missing, _CHUNK))
        if not part:
            there = size - missing
            raise VolumeError("truncated", f"{size} bytes are declared and {there} are there: copy the file again")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def drain(reader: Reader) -> None:
    """Reads to the end, so that a stream's checksum is verified.

    Raises:
        VolumeError: `too_large` if much more follows than the header declares (a bomb), `corrupt`,
            `truncated`.
    """
    extra = 0
    while part := reader.read(_CHUNK):
        extra += len(part)
        if extra > _SLACK:
            raise VolumeError("too_large", "the compressed stream holds far more than its header declares")


def read_voxels(reader: Reader, dtype: np.dtype, count: int, slope: float = 1.0, intercept: float = 0.0) -> np.ndarray:
    """`count` stored numbers x slope + intercept, as float32 [count].

    Memory grows with what is really there, not with what a header declares, and no second copy of
    the whole is made.

    Raises:
        VolumeError: `truncated`, `corrupt`.
    """
    voxels = np.empty(count, np.float32)
    per_chunk = _CHUNK // dtype.itemsize
    for start in range(0, count, per_chunk):
        part = voxels[start : start + per_chunk]
        rescale(np.frombuffer(read_exactly(reader, part.size * dtype.itemsize), dtype), slope, intercept, out=part)
    return voxels


def rescale(stored: np.ndarray, slope: float, intercept: float, out: np.ndarray) -> None:
    """Writes stored x slope + intercept into the float32 array `out`, rounded once."""
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused later, by its value
        if slope == 1 and intercept == 0:
            out[...] = stored
        elif slope == 1 and stored.dtype.itemsize <= 2 and float(intercept).is_integer() and abs(intercept) < 2**22:
            np.add(stored, np.float32(intercept), out=out, dtype=np.float32)  # exact in float32, and twice as fast
        else:
            np.copyto(out, stored.astype(np.float64) * slope + intercept, casting="same_kind")
