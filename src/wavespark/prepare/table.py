"""`--table FILE.csv`: what the user states about single inputs.

It wins over files, names and values.
"""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wavespark.errors import SettingsError
from wavespark.text import did_you_mean, printable
from wavespark.volumes import CONTRASTS, MODALITIES, Override, Source

COLUMNS = ("path", "modality", "contrast", "patient", "session")
_MAX_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table."""

    line: int
    path: str
    """Path as written in the table. Private."""
    override: Override


@dataclass(frozen=True, kw_only=True, slots=True)
class InputTable:
    """The rows of a table of inputs."""

    name: str
    folder: str
    """Paths may be relative to this folder. Private."""
    rows: tuple[Row, ...]

    def overrides(self, sources: Iterable[Source], *, all_of_them: bool = True) -> dict[str, Override]:
        """Match rows with inputs: by path below SOURCE, absolute path, path beside the table, or
        SeriesInstanceUID.

        A path of a folder holds for every input in it; a row of a file wins.

        Args:
            sources: the inputs.
            all_of_them: False if these are a part, so that rows may be about others.

        Returns:
            Source id -> what its row states.

        Raises:
            SettingsError: if a row matches no input, with its line number.
        """
        rows: dict[str, Row] = {}
        for row in self.rows:
            for name in (row.path, os.path.join(self.folder, row.path)):
                rows[_normal(name)] = row
        overrides: dict[str, Override] = {}
        used = set()
        for source in sources:
            stated = next((rows[name] for name in _names(source) if name in rows), None)
            if stated is not None:
                overrides[source.id] = stated.override
                used.add(stated.line)
        unused = [row.line for row in self.rows if row.line not in used]
        if unused and all_of_them:
            some = ", ".join(map(str, unused[:8])) + (" ..." if len(unused) > 8 else "")
            raise SettingsError(
                f"{self.name}: {len(unused)} of {len(self.rows)} row(s) name no input (line {some}): column path must "
                "hold paths below SOURCE, absolute paths, or SeriesInstanceUIDs"
            )
        return overrides


def read_table(path: str | Path) -> InputTable:
    """Read a table of inputs: CSV in UTF-8, separated by commas, semicolons or tabs, with a header.

    Args:
        path: the file. Column `path` is needed; `modality`, `contrast`, `patient` and `session` may
            be there. An empty cell states nothing.

    Raises:
        SettingsError: naming file, line and column; cells are never quoted.
    """
    path = Path(path)
    name = printable(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SettingsError(f"{name} is larger than {_MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
        header = text.partition("\n")[0]
        separator = max(",;\t", key=header.count)
        cells = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except OSError:
        raise SettingsError(f"--table: there is no readable file {name}") from None
    except (UnicodeDecodeError, csv.Error):
        raise SettingsError(f"--table: {name} is no CSV in UTF-8") from None
    columns = [c.strip().lower() for c in cells[0]] if cells else []
    _check_columns(name, columns)
    rows = [
        _row(name, line, dict(zip(columns, values, strict=False)))
        for line, values in enumerate(cells[1:], 2)
        if any(value.strip() for value in values)
    ]
    if not rows:
        raise SettingsError(f"--table: {name} has a header and no row")
    return InputTable(name=name, folder=os.path.abspath(path.parent), rows=tuple(rows))


def _check_columns(name: str, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in COLUMNS:
            near = did_you_mean(column, COLUMNS)
            raise SettingsError(f"--table: {name}, line 1 has an unknown column{near}; known: {', '.join(COLUMNS)}")
    if "path" not in columns or len(set(columns)) < len(columns):
        raise SettingsError(f"--table: {name}, line 1 must name the column path, and each column once")


def _row(name: str, line: int, cells: dict[str, str]) -> Row:
    values = {column: text.strip() or None for column, text in cells.items()}
    path = values.pop("path", None)
    if path is None:
        raise SettingsError(f"--table: {name}, line {line}: the cell of column path is empty")
    for column, known in (("modality", MODALITIES), ("contrast", CONTRASTS)):
        given = values.get(column)
        if given is not None:
            values[column] = next((k for k in known if k.lower() == given.lower()), None)
            if values[column] is None:
                raise SettingsError(f"--table: {name}, line {line}: {column} must be one of {', '.join(known)}")
    return Row(line=line, path=path, override=Override(**values))


def _names(source: Source) -> Iterable[str]:
    """Names by which a row may mean a source: the nearest first, then the folders that hold it."""
    yield source.identity
    files = [os.fsdecode(path) for path in source.paths]
    if len(files) == 1:
        yield _normal(files[0])
        yield _normal(source.relative)
    for start in (os.path.dirname(files[0]), source.relative):
        place = _normal(start)
        while place not in ("", ".", "/"):
            yield place
            place = os.path.dirname(place)


def _normal(path: str) -> str:
    return os.path.normpath(path)
