"""A list of inputs in a file: data, never code, and nothing outside its own folder."""

import csv
import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from wavespark.errors import InputError, VolumeError
from wavespark.volumes.contrasts import CONTRASTS, contrast_of
from wavespark.volumes.files import open_regular
from wavespark.volumes.source import LABEL_NAME, NOTHING_BESIDE, Beside
from wavespark.volumes.volume import MODALITIES
from wavespark.volumes.walk import Entry, Walk

EXTENSIONS = (b".json", b".jsonl", b".csv")
_KEYS = ("source", "image_path", "image", "path", "file")
_HIDDEN = ("anonymisation_mask", "anonymization_mask", "anon_mask_path")
_MAX_BYTES = 1 << 29
_MAX_PATH = 4096


@dataclass(frozen=True, slots=True)
class _Named:
    """One input of a manifest, with paths as they are written there."""

    path: str
    labels: tuple[tuple[str, str], ...] = ()
    hidden: str | None = None
    modality: str | None = None
    contrast: str | None = None


def walk_manifest(path: bytes, walk: Walk) -> dict[bytes, Beside]:
    """Judges every file and folder that a manifest names, and tells what belongs to each (by
    relative path).

    A `.json` is a list (at any depth) of paths or of objects with one of the keys `source`,
    `image_path`, `image`, `path` or `file`; a `.jsonl` has one of these a line; a `.csv` has one of
    these as a column. Beside it may stand `label` (a path; in JSON also `labels`, an object name ->
    path; in CSV also columns `label:NAME`), `anonymisation_mask`, `modality` and `contrast`. Paths
    are relative to the folder of the manifest.

    Raises:
        InputError: `bad_manifest` if it cannot be parsed, names nothing, or names an absolute path,
            a URL or `..`.
    """
    root = os.path.dirname(path)
    named: dict[bytes, list[_Named]] = defaultdict(list)
    for item in _parse(path):
        named[checked_path(item.path)].append(item)
    if not named:
        raise InputError("bad_manifest", f"the manifest names nothing: it needs one of the keys {', '.join(_KEYS)}")
    besides = {}
    for relative, items in named.items():
        target = os.path.normpath(os.path.join(root, relative))
        real = os.path.realpath(target)
        if os.path.commonpath([root, real]) != root:
            walk.refuse(relative, VolumeError("outside_root", "a link leads out of the folder of the manifest"))
        elif os.path.isdir(real):
            walk.folder(root, start=target)
        else:
            walk.named(
                Entry(
                    path=target if real == target else real, relative=relative, named=None if real == target else target
                )
            )
        beside = _beside(items, root)
        if beside != NOTHING_BESIDE:
            besides[relative] = beside
    return besides


def _beside(items: list[_Named], root: bytes) -> Beside:
    labels = dict(pair for item in items for pair in item.labels)
    hidden = next((item.hidden for item in items if item.hidden), None)
    return Beside(
        labels=tuple((name, _below(root, text)) for name, text in sorted(labels.items())),
        hidden=None if hidden is None else _below(root, hidden),
        modality=next((item.modality for item in items if item.modality), None),
        contrast=next((item.contrast for item in items if item.contrast), None),
    )


def _below(root: bytes, text: str) -> bytes:
    """The absolute path that a text means.

    Raises:
        InputError: `bad_manifest`.
    """
    target = os.path.normpath(os.path.join(root, checked_path(text)))
    if os.path.commonpath([root, os.path.realpath(target)]) != root:
        raise InputError("bad_manifest", "the manifest names a label map behind a link that leads out of its folder")
    return target


def checked_path(text: str) -> bytes:
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


def _parse(path: bytes) -> Iterator[_Named]:
    unparsed = InputError("bad_manifest", "the manifest is no JSON, JSON lines or CSV of paths")
    try:
        with open_regular(path) as file:
            if file.size > _MAX_BYTES:
                raise InputError("bad_manifest", f"the manifest is larger than {_MAX_BYTES} bytes")
            text = file.read().decode("utf-8-sig", "surrogateescape")
        if path.lower().endswith(b".csv"):
            rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
            return iter([item for row in rows for item in _items(row)])
        lines = text.splitlines() if path.lower().endswith(b".jsonl") else [text]
        return iter([item for line in lines if line.strip() for item in _items(json.loads(line))])
    except (ValueError, csv.Error, RecursionError) as error:
        raise (error if type(error) is InputError else unparsed) from None


def _items(value: object) -> Iterator[_Named]:
    """Every input in a JSON value or a row."""
    if isinstance(value, str):
        yield _Named(value)
    elif isinstance(value, list):
        for item in value:
            yield from _items(item)
    elif isinstance(value, dict):
        key = next((k for k in _KEYS if isinstance(value.get(k), str)), None)
        if key:
            yield _named(value[key], value)
        for name, item in value.items():
            if name not in (key, "labels", "associated_masks") and isinstance(item, dict | list):
                yield from _items(item)


def _named(path: str, row: dict) -> _Named:
    masks = row.get("associated_masks")
    masks = masks if isinstance(masks, dict) else {}
    hidden = next((m for m in (row.get(k) or masks.get(k) for k in _HIDDEN) if isinstance(m, str)), None)
    labels = row.get("labels")
    pairs = {"label": row.get("label")} | (labels if isinstance(labels, dict) else {})
    pairs |= {k.partition(":")[2]: v for k, v in row.items() if isinstance(k, str) and k.startswith("label:")}
    found = [(str(name), text) for name, text in pairs.items() if isinstance(text, str) and text]
    for name, _ in found:
        if not LABEL_NAME.fullmatch(name):
            raise InputError("bad_manifest", "a label's name must be up to 40 letters, digits, - or _")
    modality, contrast = (row.get(k) if isinstance(row.get(k), str) else None for k in ("modality", "contrast"))
    return _Named(
        _plain(path),
        tuple((name, _plain(text)) for name, text in found),
        None if hidden is None else _plain(hidden),
        modality if modality in MODALITIES else None,
        contrast if contrast in CONTRASTS else contrast_of(contrast or modality or ""),
    )


def _plain(path: str) -> str:
    """Without a leading `$name/`, which nnssl writes for a folder of the machine where the list was
    made."""
    return re.sub(r"^\$[A-Za-z_]\w*/+", "", path)
