"""A list of inputs in a file: data, never code, and nothing outside its own folder."""

import csv
import io
import json
import os
from collections.abc import Iterator

from wavespark.errors import InputError, VolumeError
from wavespark.volumes.files import open_regular
from wavespark.volumes.walk import Entry, Walk

EXTENSIONS = (b".json", b".jsonl", b".csv")
_KEYS = ("source", "image_path", "image", "path", "file")
_MAX_BYTES = 1 << 29
_MAX_PATH = 4096


def walk_manifest(path: bytes, walk: Walk) -> None:
    """Judges every file and folder that a manifest names.

    A `.json` is a list (at any depth) of paths or of objects with one of the keys `source`, `image_path`, `image`, `path`
    or `file`; a `.jsonl` has one of these a line; a `.csv` has one of these as a column. Paths are relative to the folder
    of the manifest.

    Raises:
        InputError: `bad_manifest` if it cannot be parsed, names nothing, or names an absolute path, a URL or `..`.
    """
    root = os.path.dirname(path)
    named = dict.fromkeys(_checked(text) for text in _parse(path))
    if not named:
        raise InputError("bad_manifest", f"the manifest names nothing: it needs one of the keys {', '.join(_KEYS)}")
    for relative in named:
        target = os.path.normpath(os.path.join(root, relative))
        real = os.path.realpath(target)
        if os.path.commonpath([root, real]) != root:
            walk.refuse(relative, VolumeError("outside_root", "a link leads out of the folder of the manifest"))
        elif os.path.isdir(real):
            walk.folder(root, start=target)
        else:
            walk.named(Entry(path=target, relative=relative))


def _checked(text: str) -> bytes:
    """The relative path, as bytes.

    Raises:
        InputError: `bad_manifest`.
    """
    relative = text.encode("utf-8", "surrogateescape")
    parts = relative.replace(b"\\", b"/").split(b"/")
    if not relative or len(relative) > _MAX_PATH or b"\x00" in relative:
        raise InputError("bad_manifest", "the manifest names an empty, endless or impossible path")
    if not parts[0] or b".." in parts or b":" in parts[0] or b"://" in relative:
        raise InputError(
            "bad_manifest", "the manifest names an absolute path, a URL or '..': paths must lie below its own folder"
        )
    return os.path.normpath(relative)


def _parse(path: bytes) -> Iterator[str]:
    unparsed = InputError("bad_manifest", "the manifest is no JSON, JSON lines or CSV of paths")
    try:
        with open_regular(path) as file:
            if file.size > _MAX_BYTES:
                raise InputError("bad_manifest", f"the manifest is larger than {_MAX_BYTES} bytes")
            text = file.read().decode("utf-8-sig", "surrogateescape")
        if path.lower().endswith(b".csv"):
            rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
            return iter([text for row in rows for text in _paths(row)])
        lines = text.splitlines() if path.lower().endswith(b".jsonl") else [text]
        return iter([text for line in lines if line.strip() for text in _paths(json.loads(line))])
    except (ValueError, csv.Error, RecursionError) as error:
        raise (error if type(error) is InputError else unparsed) from None


def _paths(value: object) -> Iterator[str]:
    """Every path in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, dict):
        key = next((k for k in _KEYS if isinstance(value.get(k), str)), None)
        if key:
            yield value[key]
        for name, item in value.items():
            if name != key and isinstance(item, dict | list):
                yield from _paths(item)
