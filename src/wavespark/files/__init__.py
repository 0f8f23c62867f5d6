"""Files of every store, run and export: written whole or not at all, locked, and read line by line.

The lowest floor that touches the disk; it knows nothing about volumes or models.
"""

from wavespark.files.lines import Record, encode_line, parse_record, read_lines
from wavespark.files.locks import WHOLE, hold, wait_for
from wavespark.files.publish import (
    UNFINISHED,
    append,
    remove_unfinished,
    sync_folder,
    write_file,
    write_folder,
    write_new,
    writing,
)
from wavespark.files.secret import SECRET, read_secret

__all__ = [
    "SECRET",
    "UNFINISHED",
    "WHOLE",
    "Record",
    "append",
    "encode_line",
    "hold",
    "parse_record",
    "read_lines",
    "read_secret",
    "remove_unfinished",
    "sync_folder",
    "wait_for",
    "write_file",
    "write_folder",
    "write_new",
    "writing",
]
