"""The inputs of a preparation: found, told apart from what is done, and named privately."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from wavespark.errors import SettingsError
from wavespark.files import Record, read_lines
from wavespark.prepare.datasets import find_in_dataset
from wavespark.prepare.manifest import SOURCES, read_items
from wavespark.prepare.recipe import DatasetName
from wavespark.volumes import ReadingSettings, Refusal, Source


def find_inputs(
    roots: Iterable[str | Path],
    secret: bytes,
    reading: ReadingSettings,
    dataset: DatasetName,
    mine: Callable[[str], bool],
) -> tuple[list[Source], list[Refusal], dict[str, Record]]:
    """Sources and refusals of this shard, each id once, and the private identity of the refused ones."""
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


def identity_of(source: Source) -> Record:
    """What tells later runs, and `inspect --reveal`, which files an id means. Private."""
    path = source.paths[0] if len(source.paths) == 1 else os.path.dirname(source.paths[0])
    changed = size = 0
    for p in source.paths + source.beside.paths:
        try:
            status = os.stat(p)
        except OSError:
            continue
        changed = max(changed, status.st_mtime_ns)
        size += status.st_size if p in source.beside.paths else 0
    return {
        "id": source.id,
        "path": os.fsdecode(path),
        "files": len(source.paths) + len(source.beside.paths),
        "bytes": source.size + size,
        "changed_ns": changed,
    }


def split_done(store: Path, found: Sequence[Source]) -> tuple[list[Source], list[Source]]:
    """Sources to work on, the largest first, and those whose volumes are all there and whose files have not changed."""
    volumes: Counter[str] = Counter()
    wanted: dict[str, int] = {}
    for record in read_items(store):
        name = str(record.get("source_id"))
        volumes[name] += 1
        wanted[name] = int(record.get("of", 1))
    before = {str(r.get("id")): r for r in read_lines(store / SOURCES, strict=True)}
    todo: list[Source] = []
    done: list[Source] = []
    for source in found:
        complete = volumes[source.id] > 0 and volumes[source.id] == wanted[source.id]
        (done if complete and _same_files(before.get(source.id), source) else todo).append(source)
    return sorted(todo, key=lambda s: (-s.size, s.id)), done


def _same_files(before: Record | None, source: Source) -> bool:
    """True if nothing tells that the files have changed; a folder that was moved as a whole has not."""
    if before is None:
        return True
    now = identity_of(source)
    if (before.get("bytes"), before.get("files")) != (now["bytes"], now["files"]):
        return False
    return before.get("path") != now["path"] or before.get("changed_ns") == now["changed_ns"]
