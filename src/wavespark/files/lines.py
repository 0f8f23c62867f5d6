"""Lists as JSON lines: one object a line, finite numbers only."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wavespark.errors import StoreError

Record = dict[str, Any]


def encode_line(record: Mapping[str, Any]) -> bytes:
    """A record as one line of JSON, the same bytes for the same record."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def parse_record(line: bytes) -> Record | None:
    """The record in a line of JSON; None where it is damaged, holds a number that is not finite, or
    is no object."""
    try:
        record = json.loads(line, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def read_lines(path: Path, *, strict: bool) -> list[Record]:
    """Reads the records of a list.

    A file that is not there has none; a last line without its end is passed over.

    Args:
        path: the file.
        strict: True refuses a damaged line; False returns the records before it.

    Returns:
        The records in the order of the file.

    Raises:
        StoreError: if a line is damaged, with `strict`.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines[:-1], 1):
        record = parse_record(line)
        if record is None:
            if strict:
                raise StoreError(f"{path}, line {number} is damaged: run the command that wrote it again")
            break
        records.append(record)
    return records


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number
