"""CSV tables that data sets bring along: data, bounded, never evaluated."""

import csv
import io
import os
from collections.abc import Iterator

from wavespark.errors import InputError

_MAX_BYTES = 1 << 28


def read_table(path: bytes) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, or none if there is no such file.

    Raises:
        InputError: `bad_manifest` if it is no table, or larger than 256 MB.
    """
    if not os.path.isfile(path):
        return
    name = os.path.basename(path).decode("utf-8", "replace")
    if os.path.getsize(path) > _MAX_BYTES:
        raise InputError("bad_manifest", f"{name} is larger than {_MAX_BYTES} bytes")
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8-sig", "replace")
        for row in csv.DictReader(io.StringIO(text, newline=""), strict=True):
            yield {str(k): v for k, v in row.items() if isinstance(v, str)}
    except (csv.Error, OSError):
        raise InputError("bad_manifest", f"{name} cannot be read as a table of comma-separated values") from None
