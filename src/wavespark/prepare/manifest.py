"""The lists of a store: manifest (a line a volume), quarantine (a line a refused input), sources
(id to path, private).

The folders in `items/` are the truth and each holds its own record. The lists are appended while a
preparation runs and written anew, sorted, when it ends, so that the same inputs give the same bytes
in whatever order they came.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wavespark.files import Record, append, encode_line, parse_record, wait_for, write_file

MANIFEST, QUARANTINE, SOURCES = "manifest.jsonl", "quarantine.jsonl", "private/sources.jsonl"
RECORD = "record.json"
LISTS_LOCK = "private/lists.lock"
"""Held while the lists that all shards of a store share are written."""
_MODE = {SOURCES: 0o600}
_KEY = {MANIFEST: "id", QUARANTINE: "source_id", SOURCES: "id"}


def add_lines(store: Path, name: str, records: Iterable[Mapping[str, Any]]) -> None:
    """Adds records to a list of the store, safe beside other shards."""
    content = b"".join(encode_line(r) for r in records)
    if content:
        with wait_for(store / LISTS_LOCK):
            _drop_torn_line(store / name)
            append(store / name, content, _MODE.get(name, 0o666))


def rewrite(store: Path, name: str, change: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Writes a list anew, sorted by key, with these changes: key -> its record, or None to take it
    out."""
    with wait_for(store / LISTS_LOCK):
        records = {r[_KEY[name]]: r for r in _forgiving(store / name)} | dict(change)
        _write_sorted(store, name, {key: encode_line(record) for key, record in records.items() if record is not None})


def rewrite_manifest(store: Path) -> None:
    """Writes the manifest anew from the items."""
    with wait_for(store / LISTS_LOCK):
        _write_sorted(store, MANIFEST, {record["id"]: encode_line(record) for record in read_items(store)})


def _write_sorted(store: Path, name: str, lines: Mapping[str, bytes]) -> None:
    write_file(store / name, b"".join(line for _, line in sorted(lines.items())), _MODE.get(name, 0o666))


def _forgiving(path: Path) -> list[Record]:
    """Records of the lines that can be read: what is damaged is made anew by the run that asks."""
    records = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        record = parse_record(line)
        if record is not None and isinstance(record.get(_KEY[_name(path)]), str):
            records.append(record)
    return records


def _name(path: Path) -> str:
    return SOURCES if path.name == "sources.jsonl" else path.name


def _drop_torn_line(path: Path) -> None:
    if path.exists():
        content = _tail(path)
        if content and not content.endswith(b"\n"):
            keep = path.stat().st_size - (len(content) - content.rfind(b"\n") - 1)
            with path.open("r+b") as file:
                file.truncate(keep)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(1 << 16, path.stat().st_size), 2)
        return file.read()


def read_items(store: Path) -> Iterator[Record]:
    """Every published item's record; an item whose record is damaged is left out, so that it is
    made again."""
    for folder in sorted((store / "items").iterdir()):
        try:
            record = parse_record((folder / RECORD).read_bytes())
        except OSError:
            continue
        if record is not None and record.get("id") == folder.name:
            yield record
