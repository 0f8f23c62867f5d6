"""Discovery of the inputs at a path."""

import os
import stat
from dataclasses import replace

from wavespark.errors import InputError, VolumeError
from wavespark.volumes.grouping import group_dicom
from wavespark.volumes.manifest import EXTENSIONS, walk_manifest
from wavespark.volumes.png_slices import group_png
from wavespark.volumes.privacy import source_id
from wavespark.volumes.settings import ReadingSettings
from wavespark.volumes.source import Beside, Source
from wavespark.volumes.volume import Refusal
from wavespark.volumes.walk import Entry, Walk


def find_sources(
    path: str | bytes | os.PathLike, secret: bytes, settings: ReadingSettings | None = None
) -> tuple[tuple[Source, ...], tuple[Refusal, ...]]:
    """Find the sources and refusals at or below a path; see `find_with_places`."""
    return find_with_places(path, secret, settings)[:2]


def find_with_places(
    path: str | bytes | os.PathLike, secret: bytes, settings: ReadingSettings | None = None
) -> tuple[tuple[Source, ...], tuple[Refusal, ...], dict[str, bytes]]:
    """Find every source at or below a path, every input refused without reading it whole, and the
    (private) paths of those.

    Args:
        path: a file, a folder, a zip or tar archive, or a manifest (.json, .jsonl or .csv, see
            `walk_manifest`). Links are followed
            if what they lead to lies below the path; the path itself may be a link to anywhere.
        secret: the key of the ids.
        settings: limits and repairs.

    Raises:
        InputError: `no_input`, `bad_manifest`, `unsafe_archive` or `unsafe_file`, when the path
            itself cannot be used.
    """
    settings = settings or ReadingSettings()
    root = os.path.realpath(os.fsencode(path))
    walk = Walk(secret=secret)
    besides: dict[bytes, Beside] = {}
    try:
        mode = os.stat(root).st_mode
    except OSError:
        raise InputError("no_input", f"there is nothing at {_shown(path)}: check its spelling") from None
    if stat.S_ISDIR(mode):
        walk.folder(root)
    elif stat.S_ISREG(mode):
        if root.lower().endswith(EXTENSIONS):
            besides = walk_manifest(root, walk)
        else:
            walk.single(Entry(path=root, relative=os.path.basename(os.fsencode(path)) or os.path.basename(root)))
    else:
        raise InputError("unsafe_file", f"{_shown(path)} is a pipe, device or socket: give a file or a folder")
    group_png(walk)
    group_dicom(walk, settings)
    if not walk.sources and not walk.refused:
        if not walk.others:
            raise InputError(
                "no_input", f"{_shown(path)} holds no image file: give a folder with DICOM, NIfTI or other volumes"
            )
        sentence = f"{walk.others} file(s), and none is an image that can be read"
        walk.refuse(b".", VolumeError("no_readable_image", sentence))
    top = root if stat.S_ISDIR(mode) else os.path.dirname(root)
    places = {
        source_id(secret, key): walk.places.get(key, os.path.normpath(os.path.join(top, key))) for key in walk.refused
    }
    return tuple(_with_beside(walk.sources, besides)), walk.refusals(), places


def _shown(path: str | bytes | os.PathLike) -> str:
    """The path as the user gave it, on one line of printable characters."""
    text = os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _with_beside(sources: list[Source], besides: dict[bytes, Beside]) -> list[Source]:
    """The sources with what a manifest says of them; label maps are no volumes of their own."""
    maps = {path for beside in besides.values() for path in beside.paths}
    named = [replace(s, beside=besides.get(os.fsencode(s.relative), s.beside)) for s in sources]
    return [s for s in named if not (len(s.paths) == 1 and s.paths[0] in maps)]
