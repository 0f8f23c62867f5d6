"""Layouts of public data sets: labels, masks and facts that belong to each volume."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wavespark.prepare.datasets import bids, deeplesion, openmind, rsna
from wavespark.prepare.recipe import DatasetName
from wavespark.volumes import ReadingSettings, Refusal, Source, find_with_places

Sources = tuple[tuple[Source, ...], tuple[Refusal, ...]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A known layout of folders."""

    name: DatasetName
    is_it: Callable[[bytes], bool]
    """Folder -> whether it looks like one."""
    start: Callable[[bytes], bytes]
    """Folder -> what to search: the folder, or a list in it."""
    adapt: Callable[[bytes, Sources, bytes], Sources]
    """(folder, what was found, secret) -> the same with what belongs to each volume."""


DATASETS = (
    Dataset("rsna-2025", rsna.is_it, lambda folder: folder, rsna.adapt),
    Dataset("openmind", openmind.is_it, openmind.start, openmind.adapt),
    Dataset("deeplesion", deeplesion.is_it, lambda folder: folder, deeplesion.adapt),
    Dataset("bids", bids.is_it, lambda folder: folder, bids.adapt),
)
"""The first that knows a folder is taken."""


def find_in_dataset(
    path: str | bytes | Path, secret: bytes, settings: ReadingSettings, dataset: DatasetName = "auto"
) -> tuple[tuple[Source, ...], tuple[Refusal, ...], dict[str, bytes]]:
    """Find the volumes of a folder; in a known data set, with the attachments of each.

    Args:
        path: a file, folder or manifest.
        secret: key of the ids.
        settings: limits and repairs.
        dataset: whose folder it is; `auto` looks.

    Raises:
        InputError: if the path itself cannot be used.
    """
    folder = os.path.realpath(os.fsencode(path))
    known = {d.name: d for d in DATASETS}
    if dataset == "plain" or not os.path.isdir(folder):
        return find_with_places(path, secret, settings)
    chosen = known.get(dataset) or next((d for d in DATASETS if d.is_it(folder)), None)
    if chosen is None:
        return find_with_places(path, secret, settings)
    sources, refused, places = find_with_places(chosen.start(folder), secret, settings)
    places |= {s.id: os.path.dirname(s.paths[0]) for s in sources}
    return *chosen.adapt(folder, (sources, refused), secret), places
