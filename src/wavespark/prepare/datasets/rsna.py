"""RSNA Intracranial Aneurysm Detection 2025: `series/UID/*.dcm`, `train.csv`,
`train_localizers.csv`, `segmentations/`.

Rows of series that are not there are passed over: counts changed with releases, and a part of the
data is data, too.
"""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from wavespark.prepare.datasets.tables import read_table
from wavespark.rsna_labels import LABELS, LOCATIONS
from wavespark.volumes import LABEL_NAME, Beside, Mark, Refusal, Source

_KINDS = {"CTA": ("CT", "CTA"), "MRA": ("MR", "MRA"), "MRI T2": ("MR", "T2"), "MRI T1post": ("MR", "T1")}
_NUMBER = r"\s*(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
_COORDINATE = re.compile(r"['\"]([xyf])['\"]\s*:" + _NUMBER)
_SUFFIXES = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_SEGMENTATIONS = "segmentations"


def is_it(folder: bytes) -> bool:
    """True for a folder with `series` and `train.csv`."""
    return os.path.isdir(os.path.join(folder, b"series")) and os.path.isfile(os.path.join(folder, b"train.csv"))


def adapt(
    folder: bytes, found: tuple[tuple[Source, ...], tuple[Refusal, ...]], secret: bytes
) -> tuple[tuple[Source, ...], tuple[Refusal, ...]]:
    """Series with their 14 targets, contrast, marks and segmentations; segmentations are no volumes
    of their own."""
    sources, refused = found
    rows = {row.get("SeriesInstanceUID", ""): row for row in read_table(os.path.join(folder, b"train.csv"))}
    marks = _marks(folder, sources)
    maps: dict[str, dict[str, bytes]] = defaultdict(dict)
    for s in sources:
        if s.kind != "dicom" and s.relative.split("/")[0] == _SEGMENTATIONS:
            uid, name = _segmented(s.relative)
            maps[uid][name] = s.paths[0]
    out = []
    for s in sources:
        if s.kind != "dicom":
            if s.relative.split("/")[0] != _SEGMENTATIONS:
                out.append(s)
            continue
        row = rows.get(s.identity, {})
        modality, contrast = _KINDS.get(row.get("Modality", "").strip(), (None, None))
        beside = Beside(
            labels=tuple(sorted(maps[s.identity].items())),
            targets=tuple((name, float(row[name])) for name in LABELS if row.get(name, "").strip() in ("0", "1")),
            marks=tuple(marks.get(s.identity, ())),
            modality=modality,
            contrast=contrast,
        )
        out.append(replace(s, beside=beside))
    return tuple(out), refused


def _segmented(relative: str) -> tuple[str, str]:
    """The series of a segmentation, and what the map is called: `UID_cowseg.nii` is `cowseg`,
    `UID.nii` is `segmentation`."""
    uid, _, name = _SUFFIXES.sub("", os.path.basename(relative)).partition("_")
    return uid, name if LABEL_NAME.fullmatch(name) else "segmentation"


def _marks(folder: bytes, sources: tuple[Source, ...]) -> dict[str, list[Mark]]:
    rows = list(read_table(os.path.join(folder, b"train_localizers.csv")))
    wanted = {row.get("SeriesInstanceUID", "") for row in rows}
    files = {s.identity: dict(_by_stem(s)) for s in sources if s.kind == "dicom" and s.identity in wanted}
    marks: dict[str, list[Mark]] = defaultdict(list)
    for row in rows:
        uid = row.get("SeriesInstanceUID", "")
        place = {key: float(value) for key, value in _COORDINATE.findall(row.get("coordinates", ""))}
        file = files.get(uid, {}).get(row.get("SOPInstanceUID", ""))
        name = row.get("location", "").strip()
        possible = {"x", "y"} <= set(place) and all(map(math.isfinite, place.values()))
        if file is not None and possible and name in LOCATIONS:
            frame = int(place.get("f", 0))
            marks[uid].append(Mark(name=name, file=file, frame=frame, x=place["x"], y=place["y"]))
    return marks


def _by_stem(source: Source) -> Iterator[tuple[str, bytes]]:
    for path in source.paths:
        yield os.fsdecode(os.path.splitext(os.path.basename(path))[0]), path
