"""The inputs of a preparation: found, told apart from what is done, and named privately."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from wavespark.errors import SettingsError
from wavespark.files import Record, read_lines
from wavespark.prepare.datasets import find_in_dataset
from wavespark.prepare.manifest import SOURCES, read_items
from wavespark.prepare.recipe import DatasetName
from wavespark.volumes import Override, ReadingSettings, Refusal, Source


def find_inputs(
    roots: Iterable[str | Path],
    secret: bytes,
    reading: ReadingSettings,
    dataset: DatasetName,
    mine: Callable[[str], bool],
) -> tuple[list[Source], list[Refusal], dict[str, Record]]:
    """Sources and refusals of this shard, each id once, and the private identity of the refused
    ones."""
    found: dict[str, Source] = {}
    refused: dict[str, Refusal] = {}
    paths: dict[str, Record] = {}
    for root in roots:
        sources, refusals, places = find_in_dataset(root, secret, reading, dataset)
        for source in sources:
            other = found.setdefault(source.id, source)
            if other.paths != source.paths:
                raise SettingsError(
                    "two inputs have the same name below their SOURCE: give the folder that holds both as one SOURCE"
                )
        refused |= {r.source_id: r for r in refusals if r.source_id not in refused}
        paths |= {r.source_id: {"id": r.source_id, "path": os.fsdecode(places[r.source_id])} for r in refusals}
    return (
        [s for s in found.values() if mine(s.id)],
        [r for r in refused.values() if mine(r.source_id) and r.source_id not in found],
        paths,
    )


def identity_of(source: Source, override: Override | None = None) -> Record:
    """Record that tells later runs, and `inspect --reveal`, which files an id means. Private."""
    path = source.paths[0] if len(source.paths) == 1 else os.path.dirname(source.paths[0])
    changed = size = 0
    for p in source.paths + source.beside.paths:
        try:
            status = os.stat(p)
        except OSError:
            continue
        changed = max(changed, status.st_mtime_ns)
        size += status.st_size if p in source.beside.paths else 0
    identity = {
        "id": source.id,
        "path": os.fsdecode(path),
        "files": len(source.paths) + len(source.beside.paths),
        "bytes": source.size + size,
        "changed_ns": changed,
    }
    return identity if override is None else identity | {"stated": hashlib.sha256(repr(override).encode()).hexdigest()}


def split_done(
    store: Path, found: Sequence[Source], overrides: Mapping[str, Override], keep_duplicates: bool = True
) -> tuple[list[Source], list[Source], dict[str, str]]:
    """Sources to work on, those that are done, and known duplicates.

    Args:
        store: the store's folder.
        found: every source.
        overrides: source id -> what the user states about it.
        keep_duplicates: take inputs up that an earlier run left out as duplicates.

    Returns:
        The sources to work on, the largest first; those whose volumes are all there and whose files
        have not changed; and duplicates, id -> id of the source that is in the store.
    """
    volumes: Counter[str] = Counter()
    wanted: dict[str, int] = {}
    for record in read_items(store):
        name = str(record.get("source_id"))
        volumes[name] += 1
        wanted[name] = int(record.get("of", 1))
    before = {str(r.get("id")): r for r in read_lines(store / SOURCES, strict=True)}
    todo: list[Source] = []
    done: list[Source] = []
    duplicates: dict[str, str] = {}
    for source in found:
        complete = volumes[source.id] > 0 and volumes[source.id] == wanted[source.id]
        known = before.get(source.id)
        same = _same_files(known, source, overrides.get(source.id))
        twin = "" if known is None else str(known.get("duplicate_of", ""))
        if same and not complete and volumes[twin] and not keep_duplicates:
            duplicates[source.id] = twin
        else:
            (done if complete and same else todo).append(source)
    return sorted(todo, key=lambda s: (-s.size, s.id)), done, duplicates


def _same_files(before: Record | None, source: Source, override: Override | None) -> bool:
    """True if nothing tells that the files have changed; a folder that was moved as a whole has
    not."""
    if before is None:
        return override is None
    now = identity_of(source, override)
    if before.get("stated") != now.get("stated"):
        return False
    if (before.get("bytes"), before.get("files")) != (now["bytes"], now["files"]):
        return False
    return before.get("path") != now["path"] or before.get("changed_ns") == now["changed_ns"]
