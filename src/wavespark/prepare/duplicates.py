"""Volumes that are in a store twice: the same voxels at the same place under another name."""

import shutil
from pathlib import Path

from wavespark.files import UNFINISHED, Record
from wavespark.prepare.manifest import read_items


def drop_duplicates(store: Path) -> dict[str, str]:
    """Remove the items of inputs that hold only volumes which another input holds too.

    Of several the one with the smallest id stays. Items with labels, targets or marks always stay.

    Returns:
        Source id of each removed input -> source id of one that stays.
    """
    items: dict[str, list[Record]] = {}
    for record in read_items(store):
        items.setdefault(str(record.get("source_id")), []).append(record)
    owner: dict[str, str] = {}
    dropped: dict[str, str] = {}
    for source, records in sorted(items.items(), key=lambda pair: (not _is_labelled(pair[1]), pair[0])):
        contents = [str(record.get("content")) for record in records]
        if not _is_labelled(records) and all(content in owner for content in contents):
            dropped[source] = owner[contents[0]]
            for record in records:
                _remove(store / "items" / record["id"])
        else:
            for content in contents:
                owner.setdefault(content, source)
    return dropped


def _is_labelled(records: list[Record]) -> bool:
    return any(record.get(key) for record in records for key in ("labels", "targets", "marks"))


def _remove(folder: Path) -> None:
    gone = folder.with_name(f"{UNFINISHED}{folder.name}")  # renamed first: an item is there whole or not at all
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
