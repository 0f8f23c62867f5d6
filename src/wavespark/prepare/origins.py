"""Which DICOM files a volume of a store was read from; private, for what must be written beside
them again."""

import os
from collections.abc import Iterable
from pathlib import Path

from wavespark.files import read_lines, read_secret
from wavespark.prepare.inputs import find_inputs
from wavespark.prepare.manifest import MANIFEST
from wavespark.prepare.recipe import reading_settings
from wavespark.prepare.store import Store


def dicom_files(store: Store, roots: Iterable[str | Path]) -> dict[str, tuple[str, ...]]:
    """The files of the DICOM series that alone gave a volume, by the volume's id.

    Args:
        store: prepared from `roots`.
        roots: the files and folders that were given then.

    Raises:
        InputError: if one of the roots cannot be used.
        StoreError: if the store's secret cannot be read.
    """
    reading = reading_settings(store.recipe.reading)
    found, _, _ = find_inputs(roots, read_secret(store.path), reading, store.recipe.dataset, lambda name: True)
    of_source = {s.id: tuple(map(os.fsdecode, s.paths)) for s in found if s.kind == "dicom"}
    records = read_lines(store.path / MANIFEST, strict=True)
    alone = {r["id"]: str(r["source_id"]) for r in records if int(r.get("of", 1)) == 1}
    return {name: of_source[source] for name, source in alone.items() if source in of_source}
