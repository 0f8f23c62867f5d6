"""A file or folder is there whole or not at all, also after a power cut: write beside, fsync,
rename, fsync the parent.

A full disk is one `StoreError`, and nothing half-written stays behind.
"""

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wavespark.errors import StoreError

UNFINISHED = ".unfinished-"
"""Start of the name of everything that is not yet published."""


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Publishes a folder with these files; one of that name that is there is replaced.

    Raises:
        StoreError: if the disk is full or cannot be written.
    """
    beside = _beside(folder)
    with _cleaned(beside, folder):
        beside.mkdir()
        for name, content in files.items():
            _write(beside / name, content, 0o666)
        sync_folder(beside)
        if folder.exists():
            old = _beside(folder)
            folder.rename(old)
            try:
                beside.rename(folder)
            except BaseException:
                old.rename(folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            beside.rename(folder)
        sync_folder(folder.parent)


def write_file(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Publishes a file; one of that name that is there is replaced.

    Raises:
        StoreError: if the disk is full or cannot be written.
    """
    beside = _beside(path)
    with _cleaned(beside, path):
        _write(beside, content, mode)
        beside.rename(path)
        sync_folder(path.parent)


def write_new(path: Path, content: bytes, mode: int = 0o666) -> bool:
    """Publishes a file unless one of that name is there; of several at once, exactly one wins.

    Returns:
        True if this call made it.
    """
    beside = _beside(path)
    with _cleaned(beside, path):
        _write(beside, content, mode)
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        finally:
            beside.unlink()
        sync_folder(path.parent)
        return True


def append(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Adds to a file and waits until the disk has it; what does not fit whole is taken back."""
    with writing(path):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode)
        try:
            before = os.fstat(handle).st_size
            try:
                _write_all(handle, content)
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)


def remove_unfinished(folder: Path, older_than_s: float = 0.0) -> None:
    """Removes what killed runs have left in a folder."""
    for left in folder.glob(f"{UNFINISHED}*"):
        if older_than_s and time.time() - left.stat().st_mtime < older_than_s:
            continue
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failed write into a sentence for the person who must act."""
    try:
        yield
    except OSError as error:
        what, code = _store_of(path), error.errno or 0
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            sentence = (
                f"the disk is full (or a quota is used up): {what} could not be written. "
                "Nothing half-written was left; make room and run the same command again"
            )
        elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
            sentence = f"{what} may not be written: choose another --output or change its permissions"
        elif code in (errno.EEXIST, errno.ENOTDIR):
            sentence = f"{what} could not be written, because a file is in its place: choose another --output"
        else:
            name = errno.errorcode.get(code, "unknown error")
            sentence = f"{what} could not be written ({name}): check the disk and run the same command again"
        raise StoreError(sentence) from None


def _store_of(path: Path) -> Path:
    return next((p for p in path.parents if (p / "items").is_dir()), path.parent)


def _beside(path: Path) -> Path:
    return path.with_name(f"{UNFINISHED}{path.name[:64]}-{os.getpid()}-{secrets.token_hex(4)}")


@contextmanager
def _cleaned(beside: Path, path: Path) -> Iterator[None]:
    with writing(path):
        try:
            yield
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True) if beside.is_dir() else beside.unlink(missing_ok=True)
            raise


def _write(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        _write_all(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]
