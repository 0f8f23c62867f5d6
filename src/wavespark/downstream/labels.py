"""A CSV of labels, row by row tied to the volumes of a store. Names of sources are compared as keyed hashes and never shown."""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wavespark.errors import SettingsError, StoreError
from wavespark.prepare import Store
from wavespark.prepare.manifest import MANIFEST, read_lines
from wavespark.volumes import source_id

KEYS = ("source", "SeriesInstanceUID", "id")
"""Columns that name a scan: its relative path or SeriesInstanceUID, or the id that the store shows."""

_MAX_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRow:
    """One line of the table, and the volume it is about."""

    line: int
    volume: str
    """Id in the store."""
    values: Mapping[str, str]
    """Column -> text, stripped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelTable:
    """What a CSV says about the volumes of a store."""

    name: str
    folder: Path
    """Paths in the table are relative to this folder."""
    columns: tuple[str, ...]
    """Without those that name the scan."""
    rows: tuple[LabelRow, ...]
    unmatched: tuple[int, ...]
    """Numbers of the lines that name nothing of the store."""

    def by_volume(self) -> dict[str, list[LabelRow]]:
        """Volume id -> its rows, in the order of the table."""
        found: dict[str, list[LabelRow]] = defaultdict(list)
        for row in self.rows:
            found[row.volume].append(row)
        return dict(found)

    def require(self, *columns: str) -> None:
        """Raises a SettingsError that names what is missing."""
        missing = [c for c in columns if c not in self.columns]
        if missing:
            raise SettingsError(
                f"{self.name} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, self.columns)) or 'none'}"
            )

    @property
    def remark(self) -> str | None:
        """A sentence about lines that were left out, or None."""
        if not self.unmatched:
            return None
        some = ", ".join(map(str, self.unmatched[:8])) + (" ..." if len(self.unmatched) > 8 else "")
        return f"{len(self.unmatched)} of {len(self.unmatched) + len(self.rows)} line(s) of {self.name} name no volume of the store (line {some})"


def read_labels(path: str | Path, store: Store) -> LabelTable:
    """The table.

    Args:
        path: UTF-8 CSV with a header; one of the columns `source` (relative path below the SOURCE that was prepared, or SeriesInstanceUID),
            `SeriesInstanceUID`, or `id` (of the store's volume).
        store: whose volumes the rows are about.

    Raises:
        SettingsError: if it cannot be read, has no such column, or no row names a volume of the store.
        StoreError: if the store's private key is needed and not there.
    """
    path = Path(path)
    columns, lines = _parse(path)
    key = next((k for k in KEYS if k in columns), None)
    if key is None:
        raise SettingsError(
            f"{path.name} has no column {', '.join(map(repr, KEYS[:-1]))} or {KEYS[-1]!r}: one must name the scan of each row"
        )
    volumes = (
        _volumes_of(store)
        if key != "id"
        else {v: [v] for v in (r["id"] for r in read_lines(store.path / MANIFEST)) if v in store}
    )
    secret = b"" if key == "id" else _secret(store)
    rows, unmatched = [], []
    for number, values in lines:
        named = values.pop(key)
        found = (
            volumes.get(named) if key == "id" else next((volumes[i] for i in _ids(secret, named) if i in volumes), None)
        )
        rows += [LabelRow(line=number, volume=v, values=values) for v in found or ()]
        unmatched += [] if found else [number]
    if not rows:
        raise SettingsError(
            f"none of the {len(lines)} line(s) of {path.name} names a volume of {store.path}: column {key!r} must hold "
            "paths relative to the prepared folder, or SeriesInstanceUIDs"
        )
    others = tuple(c for c in columns if c != key)
    return LabelTable(
        name=path.name, folder=path.resolve().parent, columns=others, rows=tuple(rows), unmatched=tuple(unmatched)
    )


def _ids(secret: bytes, named: str) -> Iterator[str]:
    yield source_id(secret, named)
    yield source_id(secret, os.path.normpath(named))


def _volumes_of(store: Store) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for record in read_lines(store.path / MANIFEST):
        if record.get("id") in store and record["id"] not in found[str(record.get("source_id"))]:
            found[str(record.get("source_id"))].append(record["id"])
    return found


def _secret(store: Store) -> bytes:
    try:
        return bytes.fromhex((store.path / "private" / "secret").read_text())
    except (OSError, ValueError):
        raise StoreError(
            f"{store.path} came without its folder `private`, so paths and UIDs cannot be told: give the labels a column `id` with the store's ids"
        ) from None


def _parse(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SettingsError(f"{path.name} is larger than {_MAX_BYTES} bytes")
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        columns = [c.strip() for c in reader.fieldnames or ()]
        reader.fieldnames = columns
        lines = [
            (reader.line_num, {k: (v or "").strip() for k, v in row.items() if isinstance(k, str)}) for row in reader
        ]
    except OSError:
        raise SettingsError(f"there is no readable file {path.name}: --labels needs a CSV") from None
    except (UnicodeDecodeError, csv.Error):
        raise SettingsError(f"{path.name} is no UTF-8 CSV") from None
    if len(set(columns)) < len(columns):
        raise SettingsError(f"{path.name} names a column twice")
    return columns, lines
