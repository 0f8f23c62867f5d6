"""The lists of a store: manifest (a line a volume), quarantine (a line a refused input), sources (id to path, private).

The folders in `items/` are the truth and each holds its own record. The lists are appended while a preparation runs and
written anew, sorted, when it ends, so that the same inputs give the same bytes in whatever order they came.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wavespark.errors import StoreError
from wavespark.prepare.lock import briefly
from wavespark.prepare.publish import append, write_file

Record = dict[str, Any]

MANIFEST, QUARANTINE, SOURCES = "manifest.jsonl", "quarantine.jsonl", "private/sources.jsonl"
RECORD = "record.json"
_MODE = {SOURCES: 0o600}
_KEY = {MANIFEST: "id", QUARANTINE: "source_id", SOURCES: "id"}


def encode_line(record: Mapping[str, Any]) -> bytes:
    """A record as one line of JSON, the same bytes for the same record."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def read_lines(path: Path) -> list[Record]:
    """The records of a list; a last line that a killed run has left unfinished is passed over.

    Raises:
        StoreError: if another line is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines[:-1], 1):
        record = _record(line)
        if record is None:
            raise StoreError(
                f"{path}, line {number} is damaged: run the same preparation again, it makes the lists anew"
            )
        records.append(record)
    return records


def add_lines(store: Path, name: str, records: Iterable[Mapping[str, Any]]) -> None:
    """Adds records to a list of the store, safe beside other shards."""
    content = b"".join(encode_line(r) for r in records)
    if content:
        with briefly(store / "private"):
            _drop_torn_line(store / name)
            append(store / name, content, _MODE.get(name, 0o666))


def rewrite(store: Path, name: str, change: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Writes a list anew, sorted by key, with these changes: key -> its record, or None to take it out."""
    with briefly(store / "private"):
        records = {r[_KEY[name]]: r for r in _forgiving(store / name)} | dict(change)
        _write_sorted(store, name, {key: encode_line(record) for key, record in records.items() if record is not None})


def rewrite_manifest(store: Path) -> None:
    """Writes the manifest anew from the items."""
    with briefly(store / "private"):
        _write_sorted(store, MANIFEST, {record["id"]: encode_line(record) for record in read_items(store)})


def _write_sorted(store: Path, name: str, lines: Mapping[str, bytes]) -> None:
    write_file(store / name, b"".join(line for _, line in sorted(lines.items())), _MODE.get(name, 0o666))


def _forgiving(path: Path) -> list[Record]:
    """Records of the lines that can be read: what is damaged is made anew by the run that asks."""
    records = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        record = _record(line)
        if record is not None and isinstance(record.get(_KEY[_name(path)]), str):
            records.append(record)
    return records


def _record(line: bytes) -> Record | None:
    """The record in a line of JSON; None where it is damaged, holds a number that is not finite, or is no object."""
    try:
        record = json.loads(line, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


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
    """Every published item's record; an item whose record is damaged is left out, so that it is made again."""
    for folder in sorted((store / "items").iterdir()):
        try:
            record = _record((folder / RECORD).read_bytes())
        except OSError:
            continue
        if record is not None and record.get("id") == folder.name:
            yield record
