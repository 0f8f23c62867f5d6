"""BIDS (Brain Imaging Data Structure 1.10): label maps and deface masks go to the images that they
name.

Images below `derivatives`, `sourcedata` and `code` are no raw data and are left out; label maps
below `derivatives` are taken.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from wavespark.volumes import LABEL_NAME, Beside, Refusal, Source

_MAPS = ("dseg", "mask", "roi", "seg")
_HIDDEN = ("defacemask",)
_NOT_RAW = ("derivatives", "sourcedata", "code")
_ENTITY = re.compile(r"([A-Za-z]+)-([A-Za-z0-9]+)")
_NAMING = ("desc", "label", "mod", "space", "res", "atlas", "seg")
"""Entities that say what a map is, not which image it belongs to."""


@dataclass(frozen=True, slots=True)
class _Name:
    entities: dict[str, str]
    suffix: str

    @classmethod
    def of(cls, relative: str) -> "_Name":
        stem = os.path.basename(relative).split(".")[0]
        parts = stem.split("_")
        return cls({m[1]: m[2] for m in map(_ENTITY.fullmatch, parts) if m}, parts[-1])

    def belongs_to(self, image: "_Name") -> bool:
        """True if no entity contradicts; `mod` is the image's suffix."""
        if self.entities.get("mod", image.suffix) != image.suffix or "sub" not in self.entities:
            return False
        which = {k: v for k, v in self.entities.items() if k not in _NAMING}
        return all(image.entities.get(k) == v for k, v in which.items())

    @property
    def called(self) -> str:
        """Name of the map: its label, description or suffix."""
        words = [self.entities[k] for k in ("label", "desc", "atlas", "seg") if k in self.entities]
        name = "-".join([*words, self.suffix])
        return name if LABEL_NAME.fullmatch(name) else self.suffix


def is_it(folder: bytes) -> bool:
    """True for a folder with `dataset_description.json` and a subject."""
    if not os.path.isfile(os.path.join(folder, b"dataset_description.json")):
        return False
    with os.scandir(folder) as items:
        return any(item.name.startswith(b"sub-") and item.is_dir(follow_symlinks=False) for item in items)


def adapt(
    folder: bytes, found: tuple[tuple[Source, ...], tuple[Refusal, ...]], secret: bytes
) -> tuple[tuple[Source, ...], tuple[Refusal, ...]]:
    """Raw images with their label maps and deface masks; a map that belongs to no image is left
    out."""
    sources, refused = found
    named = [(s, _Name.of(s.relative)) for s in sources]
    maps = [(s, n) for s, n in named if s.kind != "dicom" and n.suffix in _MAPS + _HIDDEN]
    taken = {s.id for s, _ in maps}
    images = [(s, n) for s, n in named if s.id not in taken and s.relative.split("/")[0] not in _NOT_RAW]
    by_subject: dict[str | None, list[tuple[Source, _Name]]] = {}
    for s, n in maps:
        by_subject.setdefault(n.entities.get("sub"), []).append((s, n))
    return tuple(_with_maps(s, n, by_subject.get(n.entities.get("sub"), ())) for s, n in images), refused


def _with_maps(source: Source, name: _Name, maps: Iterable[tuple[Source, _Name]]) -> Source:
    mine = [(s, n) for s, n in maps if n.belongs_to(name)]
    if not mine:
        return source
    hidden = next((s.paths[0] for s, n in mine if n.suffix in _HIDDEN), None)
    labels = {n.called: s.paths[0] for s, n in mine if n.suffix in _MAPS}
    return replace(source, beside=Beside(labels=tuple(sorted(labels.items())), hidden=hidden))
