"""A CSV of labels whose rows are tied to the volumes of a store.

Separators are commas, semicolons or tabs; a byte order mark is accepted, and decimal commas where
the separator is no comma. Errors quote the user's own table; names that only the store knows are
compared as keyed hashes and never shown.
"""

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wavespark.errors import SettingsError
from wavespark.files import read_lines, read_secret
from wavespark.prepare import Store
from wavespark.prepare.manifest import MANIFEST, SOURCES
from wavespark.volumes import source_id

KEYS = ("source", "SeriesInstanceUID", "id")
"""Columns that name a scan: its path or SeriesInstanceUID, or the id that the store shows."""

_MAX_BYTES = 1 << 28
_WITHOUT_SECRET = "give the labels a column `id` with the store's ids"
_SEPARATORS = (",", ";", "\t")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_DECIMAL_POINT = re.compile(r"[+-]?\d+\.\d+(?:[eE][+-]?\d+)?")
_SHOWN = 80
"""Characters of a cell that a message quotes."""


def quoted(text: object) -> str:
    r"""Return a cell as messages quote it: shortened, control characters and direction overrides
    escaped.

    >>> quoted("a\x1b[2J")
    "'a\\x1b[2J'"
    """
    words = str(text)
    return repr(words if len(words) <= _SHOWN else words[: _SHOWN - 3] + "...")


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
    """Rows of a CSV about the volumes of a store."""

    name: str
    folder: Path
    """Paths in the table are relative to this folder."""
    columns: tuple[str, ...]
    """Without those that name the scan."""
    rows: tuple[LabelRow, ...]
    unmatched: tuple[int, ...]
    """Numbers of the lines that name nothing of the store."""

    def by_volume(self) -> dict[str, list[LabelRow]]:
        """Return volume id -> its rows, in the order of the table."""
        rows: dict[str, list[LabelRow]] = defaultdict(list)
        for row in self.rows:
            rows[row.volume].append(row)
        return dict(rows)

    def require(self, *columns: str) -> None:
        """Raise a SettingsError that names the columns that are missing, if any."""
        missing = [c for c in columns if c not in self.columns]
        if missing:
            raise SettingsError(
                f"{self.name} has no column {', '.join(map(quoted, missing))}; it has {_listed(self.columns)}"
            )

    @property
    def remark(self) -> str | None:
        """A sentence about lines that were left out, or None."""
        if not self.unmatched:
            return None
        some = ", ".join(map(str, self.unmatched[:8])) + (" ..." if len(self.unmatched) > 8 else "")
        total = len(self.unmatched) + len({row.line for row in self.rows})
        return f"{len(self.unmatched)} of {total} line(s) of {self.name} name no volume of the store (line {some})"


def read_labels(path: str | Path, store: Store) -> LabelTable:
    """Read a table of labels.

    Args:
        path: UTF-8 CSV with a header; one of the columns `source` (path of the scan, relative to
            the folder that was prepared, absolute, or its unique last part; or its
            SeriesInstanceUID), `SeriesInstanceUID`, or `id` (of the store's volume).
        store: whose volumes the rows are about.

    Returns:
        The rows that name a volume of the store; lines that name none are listed in `unmatched`.

    Raises:
        SettingsError: if it cannot be read, has no such column, a path fits several scans, or no
            row names a volume.
        StoreError: if the store's private key is needed and not there.
    """
    path = Path(path)
    columns, lines = _parse(path)
    key = next((k for k in KEYS if k in columns), None)
    if key is None:
        raise SettingsError(
            f"{path.name}, line 1: there is no column {', '.join(map(repr, KEYS[:-1]))} or {KEYS[-1]!r}, "
            f"and one must name the scan of each row; the columns are {_listed(columns)}"
        )
    scans = _Ids(store) if key == "id" else _Scans(store)
    rows, unmatched = [], []
    for number, values in lines:
        volumes = scans.volumes(values[key], f"{path.name}, line {number}")
        others = {c: text for c, text in values.items() if c != key}
        rows += [LabelRow(line=number, volume=v, values=others) for v in volumes]
        unmatched += [] if volumes else [number]
    if not rows:
        raise SettingsError(_no_match(path, store, key, lines))
    return LabelTable(
        name=path.name,
        folder=path.resolve().parent,
        columns=tuple(c for c in columns if c != key),
        rows=tuple(rows),
        unmatched=tuple(unmatched),
    )


def _no_match(path: Path, store: Store, key: str, lines: Sequence[tuple[int, Mapping[str, str]]]) -> str:
    if not lines:
        return f"{path.name} has a header and no further line"
    number, values = lines[0]
    return (
        f"none of the {len(lines)} line(s) of {path.name} names a volume of {store.path}: line {number} has "
        f"{quoted(values[key])} in column {key!r}, which must hold the path of a prepared scan (relative, absolute, or "
        "its unique last part) or its SeriesInstanceUID. `wavespark inspect STORE --reveal ID` shows the path of an id"
    )


class _Ids:
    """Volumes of a store by their ids."""

    def __init__(self, store: Store) -> None:
        self._ids = {volume.id for volume in store}

    def volumes(self, text: str, where: str) -> list[str]:
        return [text] if text in self._ids else []


class _Scans:
    """Volumes of a store by the path or SeriesInstanceUID of their scan."""

    def __init__(self, store: Store) -> None:
        self._secret = read_secret(store.path, _WITHOUT_SECRET)
        self._volumes: dict[str, list[str]] = defaultdict(list)
        for record in read_lines(store.path / MANIFEST, strict=True):
            scan = str(record.get("source_id"))
            if record.get("id") in store and record["id"] not in self._volumes[scan]:
                self._volumes[scan].append(record["id"])
        self._by_last: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for record in read_lines(store.path / SOURCES, strict=True):
            parts = _parts(str(record.get("path", "")))
            if parts and self._volumes.get(str(record.get("id"))):
                self._by_last[parts[-1]].append((parts, str(record["id"])))

    def volumes(self, text: str, where: str) -> list[str]:
        """Return the volumes of the scan that a cell names; none if there is no such scan.

        Raises:
            SettingsError: if the cell fits several scans.
        """
        for spelling in (text, os.path.normpath(text)):
            if volumes := self._volumes.get(source_id(self._secret, spelling)):
                return volumes
        scans = self._ending(_parts(text)) or self._ending(_parts(os.path.realpath(text)))
        if len(scans) > 1:
            raise SettingsError(
                f"{where}: {quoted(text)} fits {len(scans)} scans of the store: write more of the path of the right one"
            )
        return self._volumes[scans[0]] if scans else []

    def _ending(self, parts: tuple[str, ...]) -> list[str]:
        """Ids of the scans whose absolute path ends with these parts."""
        known = self._by_last.get(parts[-1], ()) if parts else ()
        return list(dict.fromkeys(scan for path, scan in known if path[-len(parts) :] == parts))


def _parts(path: str) -> tuple[str, ...]:
    r"""Components of a path of any system; `/` and `\` separate.

    >>> _parts("./a//b\\c.nii")
    ('a', 'b', 'c.nii')
    """
    return tuple(part for part in re.split(r"[\\/]+", path) if part not in ("", "."))


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(quoted, columns)) or "none"


def _parse(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and lines of a CSV, each with its number; texts stripped, decimal commas as points."""
    text = _text(path)
    separator = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    lines: list[tuple[int, dict[str, str]]] = []
    columns: list[str] = []
    try:
        columns = [c.strip() for c in next(reader, [])]
        if twice := [c for c in dict.fromkeys(columns) if c and columns.count(c) > 1]:
            raise SettingsError(f"{path.name}, line 1: the column {quoted(twice[0])} is there twice")
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((reader.line_num, _row(columns, cells, f"{path.name}, line {reader.line_num}")))
    except csv.Error:
        raise SettingsError(
            f"{path.name}, line {reader.line_num}: this is no UTF-8 CSV, a quotation mark or line break is out of place"
        ) from None
    if separator != ",":
        _decimal_commas(path.name, columns, lines)
    return [c for c in columns if c], lines


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SettingsError(f"{path.name} is larger than {_MAX_BYTES} bytes")
        content = path.read_bytes()
    except OSError:
        raise SettingsError(f"there is no readable file {path}: give a CSV of labels") from None
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"{path.name}, line {line}: this is no UTF-8 CSV ({content[error.start : error.start + 1].hex()} hexadecimal is "
            "no character there). Save it as `CSV UTF-8`"
        ) from None


def _separator(text: str) -> str:
    """The separator under which the header names a scan; failing that the one that gives the most
    columns."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    columns = {s: [c.strip().strip('"') for c in header.split(s)] for s in _SEPARATORS}
    return max(_SEPARATORS, key=lambda s: (bool(set(KEYS) & set(columns[s])), len(columns[s])))


def _row(columns: Sequence[str], cells: Sequence[str], where: str) -> dict[str, str]:
    if extra := [c for c in cells[len(columns) :] if c.strip()]:
        raise SettingsError(
            f"{where}: there are {len(cells)} cells and {len(columns)} columns, beginning with {quoted(extra[0])} too "
            "many. Quote text with separators, and write numbers with a decimal point"
        )
    padded = [c.strip() for c in cells] + [""] * (len(columns) - len(cells))
    return {column: cell for column, cell in zip(columns, padded, strict=False) if column}


def _decimal_commas(name: str, columns: Sequence[str], lines: Sequence[tuple[int, dict[str, str]]]) -> None:
    """Replace decimal commas by points, column by column.

    Raises:
        SettingsError: if a column has both, so that a point may separate thousands.
    """
    for column in columns:
        commas = [(n, row) for n, row in lines if _DECIMAL_COMMA.fullmatch(row.get(column, ""))]
        points = [(n, row) for n, row in lines if _DECIMAL_POINT.fullmatch(row.get(column, ""))] if commas else []
        if points:
            (a, comma), (b, point) = commas[0], points[0]
            raise SettingsError(
                f"{name}: column {quoted(column)} has {quoted(comma[column])} in line {a} and {quoted(point[column])} in "
                f"line {b}: write all numbers with a decimal point"
            )
        for _, row in commas:
            row[column] = row[column].replace(",", ".")
