"""DeepLesion: `Images_png/PATIENT_STUDY_SERIES/NNN.png` around key slices, with gaps in between.

Each run of slices without a gap becomes a volume of its own; what is interpolated across a gap
would be invented. The data are mostly bodies: the recipe `deeplesion` keeps what has a skull
(`only_heads`).
"""

import os
import re
from dataclasses import replace

from wavespark.volumes import Refusal, Source, source_id

LEAST_SLICES = 8
"""Shorter runs show too little to learn from."""

_NUMBER = re.compile(rb"(\d+)\.png$", re.IGNORECASE)


def is_it(folder: bytes) -> bool:
    """True for a folder with its table."""
    return os.path.isfile(os.path.join(folder, b"DL_info.csv"))


def adapt(
    folder: bytes, found: tuple[tuple[Source, ...], tuple[Refusal, ...]], secret: bytes
) -> tuple[tuple[Source, ...], tuple[Refusal, ...]]:
    """Series cut at their gaps; the longest run keeps the id of the series."""
    sources, refused = list(found[0]), list(found[1])
    out: list[Source] = []
    for source in sources:
        if source.kind != "png":
            out.append(source)
            continue
        runs = sorted(_runs(source), key=lambda run: (-len(run), run))
        if len(runs[0]) < LEAST_SLICES:
            sentence = f"its longest run of slices without a gap is {len(runs[0])} long: {LEAST_SLICES} are needed"
            refused.append(Refusal(source_id=source.id, reason="too_few_slices", sentence=sentence))
            continue
        for number, run in enumerate(r for r in runs if len(r) >= LEAST_SLICES):
            identity = source.identity if number == 0 else f"{source.identity}#{_number(run[0])}"
            out.append(
                replace(
                    source,
                    id=source.id if number == 0 else source_id(secret, identity),
                    identity=identity,
                    paths=run,
                    size=max(1, source.size * len(run) // len(source.paths)),
                )
            )
    return tuple(out), tuple(refused)


def _number(path: bytes) -> int:
    found = _NUMBER.search(path)
    return int(found[1]) if found else 0


def _runs(source: Source) -> list[tuple[bytes, ...]]:
    runs: list[list[bytes]] = []
    last = None
    for path in sorted(source.paths, key=_number):
        if last is None or _number(path) != last + 1:
            runs.append([])
        runs[-1].append(path)
        last = _number(path)
    return [tuple(run) for run in runs]
