"""Zip and tar archives read like folders: a path may go on below an archive,
`study.zip/IM/0001.dcm`.

Nothing is written where it could be found: members of a zip are unpacked in memory, a compressed
tar in an anonymous temporary file that vanishes when it is closed. An archive is refused as a whole
if any member has a name that leaves it, is a link or device, is encrypted, or if there is more in
it than its size can honestly hold. Archives in archives are not opened.
"""

import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import IO, Protocol

from wavespark.errors import VolumeError
from wavespark.volumes.files import Inflated, MemoryFile, OpenFile, Reader, growth_limit, open_regular, read_exactly
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.streams import is_compressed, plain_reader

_MOST_MEMBERS = 200_000
_MOST_BYTES = 1 << 36  # plain bytes of all members together
_LEAST_BYTES = 1 << 30  # that any archive may hold, however small it is
_GROWTH = 256
_CHUNK = 1 << 20
_LOCAL_HEADER = 30  # bytes of a zip member's own header, without its name
_SPLIT = "unpack it yourself and give the folder"


class Archive(Protocol):
    """An opened archive."""

    @property
    def members(self) -> Mapping[bytes, int]:
        """Size of each regular member by its name, with `/` between folders."""
        ...

    def read(self, name: bytes) -> bytes:
        """The bytes of a member."""
        ...


def open_archive(path: bytes) -> Archive:
    """Open and check the archive at a path.

    Raises:
        VolumeError: `unsafe_archive`, or those of `open_regular`.
    """
    try:
        status = os.lstat(path)
    except OSError:
        raise VolumeError("not_found", "the archive is no longer there") from None
    return _opened(
        path, (status.st_ino, status.st_size, status.st_mtime_ns)
    )  # another state of the file is another archive


def open_member(path: bytes) -> MemoryFile | None:
    """Read the member that a path below an archive names; None if no part of the path is a regular
    file.

    Raises:
        VolumeError: `not_found`, `unsafe_archive`, `corrupt` or `truncated`.
    """
    above = os.path.dirname(path)
    while above and above != os.path.dirname(above):
        try:
            mode = os.lstat(above).st_mode
        except OSError:
            above = os.path.dirname(above)
            continue
        return MemoryFile(open_archive(above).read(path[len(above) + 1 :])) if stat.S_ISREG(mode) else None
    return None


@lru_cache(maxsize=4)
def _opened(path: bytes, state: tuple[int, ...]) -> Archive:
    with open_regular(path) as file:
        head = file.read(6)
        file.seek(0)
        with unquoted("unsafe_archive", f"the archive is damaged: copy it again, or {_SPLIT}"):
            if head.startswith(b"PK"):
                return _Zip(path, file)
            return _PackedTar(file) if is_compressed(head) else _Tar(path, file)


class _Zip:
    """A zip: where each member lies.

    The file is opened for each member, so that no process shares a position in it.
    """

    def __init__(self, path: bytes, file: OpenFile) -> None:
        self._path = path
        with zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        self._infos = {_checked_name(_written_name(info)): info for info in infos}
        if len(self._infos) < len(infos):
            raise VolumeError("unsafe_archive", f"the archive holds two members of one name: {_SPLIT}")
        for info in infos:
            _check_member(info)
        _check_overlap(infos)
        self.members = {name: info.file_size for name, info in self._infos.items()}
        _check_amount(self.members, len(infos), file.size)

    def read(self, name: bytes) -> bytes:
        info = self._infos.get(name)
        if info is None:
            raise VolumeError("not_found", "the file is no longer in its archive")
        with open_regular(self._path) as file:
            file.seek(info.header_offset)
            head = read_exactly(file, _LOCAL_HEADER)
            file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), os.SEEK_CUR)
            packed = read_exactly(file, info.compress_size)
        reader: Reader = MemoryFile(packed)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            reader = Inflated(reader, wbits=-15)
        data = read_exactly(reader, info.file_size)
        if reader.read(1) or zlib.crc32(data) != info.CRC:
            raise VolumeError("corrupt", "a member of the archive is damaged: copy the archive again")
        return data


def _check_member(info: zipfile.ZipInfo) -> None:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise VolumeError("unsafe_archive", f"the archive holds a link or device: {_SPLIT}")
    if info.flag_bits & 1:
        raise VolumeError("unsafe_archive", f"the archive is encrypted: {_SPLIT}")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise VolumeError("unsafe_archive", f"the archive is compressed in a rare way: {_SPLIT}")
    if info.file_size > growth_limit(info.compress_size):
        times = info.file_size // max(info.compress_size, 1)
        raise VolumeError(
            "unsafe_archive", f"a member of {info.file_size} bytes is packed {times} times smaller: {_SPLIT}"
        )


class _Tar:
    """A plain tar: where each member lies."""

    def __init__(self, path: bytes, file: OpenFile) -> None:
        self._path = path
        self._places = _tar_places(file, file.size)
        self.members = {name: length for name, (_, length) in self._places.items()}

    def read(self, name: bytes) -> bytes:
        start, length = _place(self._places, name)
        with open_regular(self._path) as file:
            file.seek(start)
            return read_exactly(file, length)


class _PackedTar:
    """A compressed tar, unpacked as a whole into a temporary file that has no name and vanishes
    with this object."""

    def __init__(self, file: OpenFile) -> None:
        limit = min(max(_GROWTH * file.size, _LEAST_BYTES), _MOST_BYTES)
        reader = plain_reader(file)
        with tempfile.TemporaryFile() as plain:
            while part := reader.read(_CHUNK):
                plain.write(part)
                if plain.tell() > limit:
                    raise VolumeError(
                        "unsafe_archive", f"an archive of {file.size} bytes grows beyond {limit} bytes: {_SPLIT}"
                    )
            size = plain.tell()
            plain.seek(0)
            self._places = _tar_places(plain, size)
            self._descriptor = os.dup(plain.fileno())
        self.members = {name: length for name, (_, length) in self._places.items()}

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, name: bytes) -> bytes:
        start, length = _place(self._places, name)
        data = os.pread(self._descriptor, length, start)
        if len(data) != length:
            raise VolumeError("truncated", f"a member of {length} bytes ends after {len(data)}: copy the archive again")
        return data


def _tar_places(file: IO[bytes] | OpenFile, size: int) -> dict[bytes, tuple[int, int]]:
    """Locate each regular member: {name: (offset, length)}, bytes.

    Raises:
        VolumeError: `unsafe_archive`.
    """
    places: dict[bytes, tuple[int, int]] = {}
    count = 0
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            count += 1
            if count > _MOST_MEMBERS:
                break
            name = _checked_name(os.fsencode(info.name), folder=info.isdir())
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise VolumeError("unsafe_archive", f"the archive holds a link or device: {_SPLIT}")
            if info.size < 0 or info.offset_data + info.size > size:
                raise VolumeError("unsafe_archive", f"the archive ends early: copy it again, or {_SPLIT}")
            if name in places:
                raise VolumeError("unsafe_archive", f"the archive holds two members of one name: {_SPLIT}")
            places[name] = info.offset_data, info.size
    _check_amount({name: length for name, (_, length) in places.items()}, count, size)
    return places


def _place(places: Mapping[bytes, tuple[int, int]], name: bytes) -> tuple[int, int]:
    if name not in places:
        raise VolumeError("not_found", "the file is no longer in its archive")
    return places[name]


def _written_name(info: zipfile.ZipInfo) -> bytes:
    """The name as it stands in the archive; Windows programs write backslashes."""
    return info.orig_filename.replace("\\", "/").encode("utf-8", "surrogateescape")


def _checked_name(name: bytes, folder: bool = False) -> bytes:
    """The name, if it stays below the archive. A folder may be the archive itself."""
    parts = name.split(b"/")
    if not (name or folder) or b"\x00" in name or name.startswith(b"/") or b".." in parts or b":" in parts[0]:
        sentence = f"a member's name leaves the archive (an absolute path or '..'): nothing of it is read, {_SPLIT}"
        raise VolumeError("unsafe_archive", sentence)
    return b"/".join(part for part in parts if part not in (b"", b"."))


def _check_overlap(infos: list[zipfile.ZipInfo]) -> None:
    """Refuses members that share bytes: the way to put a huge amount into a small zip."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise VolumeError("unsafe_archive", f"members of the archive overlap: {_SPLIT}")
        end = info.header_offset + _LOCAL_HEADER + info.compress_size


def _check_amount(members: Mapping[bytes, int], count: int, size: int) -> None:
    total = sum(members.values())
    limit = min(max(_GROWTH * size, _LEAST_BYTES), _MOST_BYTES)
    if count > _MOST_MEMBERS:
        raise VolumeError("unsafe_archive", f"the archive has more than {_MOST_MEMBERS} members: {_SPLIT}")
    if total > limit:
        raise VolumeError("unsafe_archive", f"an archive of {size} bytes holds {total}, more than {limit}: {_SPLIT}")
