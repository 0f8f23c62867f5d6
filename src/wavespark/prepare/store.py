"""A store of prepared volumes: opened, counted, read crop by crop, checked.

STORE/store.json            format and recipe
STORE/manifest.jsonl        one line a volume: the records of all items
STORE/quarantine.jsonl      one line a refused input
STORE/items/ID/             voxels.b2nd, foreground.b2nd, label_NAME.b2nd, record.json (with the
SHA-256 of the others) STORE/private/              the secret of the ids, and id -> path; stays on
the machine, mode 600
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wavespark.errors import SettingsError, StoreError
from wavespark.files import encode_line, read_lines
from wavespark.prepare.intensity import Encoding
from wavespark.prepare.item_files import ARRAY_FILE, ITEM_ID
from wavespark.prepare.manifest import MANIFEST, QUARANTINE, RECORD
from wavespark.prepare.recipe import Recipe
from wavespark.prepare.stored import Items, StoredVolume
from wavespark.progress import OnProgress, ignore_progress
from wavespark.volumes import Refusal

FORMAT = 1
STORE_FILE = "store.json"


def _place(mm: Sequence[float]) -> tuple[float, float, float]:
    r, a, s = (float(x) for x in mm)
    return r, a, s


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in a store that is not as it was written."""

    id: str
    """Which item."""
    file: str
    sentence: str


class Store(Sequence[StoredVolume]):
    """Prepared volumes, in the order of their ids. Safe to pickle and to use after a fork."""

    def __init__(self, path: Path, recipe: Recipe, lines: list[bytes], ids: dict[str, int]) -> None:
        self.path = path
        """The store's folder."""
        self.recipe = recipe
        """How its volumes were made; `recipe.fingerprint`, `recipe.settings`."""
        self._lines = lines  # parsed on demand: a hundred thousand records would fill the memory of every loader worker
        self._ids = ids
        self._items = Items(path / "items")

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[StoredVolume]:
        return (self._volume(i) for i in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return name in self._ids

    def __getitem__(self, which: int | str | slice) -> Any:
        """The volume at a position (also from the end) or of an id; of a slice, a list.

        Raises:
            IndexError, KeyError: if there is none.
        """
        if isinstance(which, str):
            return self._volume(self._ids[which])
        if isinstance(which, slice):
            return [self._volume(i) for i in range(*which.indices(len(self)))]
        if not -len(self) <= which < len(self):
            raise IndexError(f"the store has {len(self)} volume(s), there is no number {which}")
        return self._volume(which % len(self))

    def _volume(self, index: int) -> StoredVolume:
        record = json.loads(self._lines[index])
        try:
            c, d, h, w = (int(n) for n in record["shape"])
            i, j, k = (int(n) for n in record["source"]["shape"])
            return StoredVolume(
                id=str(record["id"]),
                patient=str(record["patient"]),
                content=str(record["content"]),
                modality=str(record["modality"]),
                contrast=None if record["contrast"] is None else str(record["contrast"]),
                shape=(c, d, h, w),
                affine=np.array(record["affine"], np.float64).reshape(4, 4),
                notes=tuple(str(note) for note in record["notes"]),
                encoding=Encoding.from_json(record["encoding"]),
                source_shape=(i, j, k),
                source_affine=np.array(record["source"]["affine"], np.float64).reshape(4, 4),
                items=self._items,
                targets={str(k): float(v) for k, v in record.get("targets", {}).items()},
                marks=tuple((str(m["name"]), _place(m["mm"])) for m in record.get("marks", ())),
                label_values={str(k): tuple(int(n) for n in v) for k, v in record.get("labels", {}).items()},
            )
        except (KeyError, TypeError, ValueError):
            raise StoreError(
                f"{self.path / MANIFEST}, line {index + 1} is damaged: run the same preparation again"
            ) from None

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """Inputs that were left out, and why."""
        try:
            return tuple(
                Refusal(**{k: str(r[k]) for k in ("source_id", "reason", "sentence")})
                for r in read_lines(self.path / QUARANTINE, strict=True)
            )
        except KeyError:
            raise StoreError(f"{self.path / QUARANTINE} is damaged: run the same preparation again") from None

    @property
    def bytes(self) -> int:
        """Size of all items on disk."""
        return sum(int(f["bytes"]) for line in self._lines for f in json.loads(line)["files"].values())

    def verify(self, on_progress: OnProgress = ignore_progress) -> tuple[Damage, ...]:
        """Everything that is not as it was written: each item's files by their SHA-256, its record
        by the manifest."""
        found: list[Damage] = []
        for number, line in enumerate(self._lines, 1):
            record = json.loads(line)
            folder = self._items.folder / record["id"]
            sums = {name: entry["sha256"] for name, entry in record["files"].items() if ARRAY_FILE.fullmatch(name)}
            sums[RECORD] = hashlib.sha256(encode_line(record)).hexdigest()
            for name, expected in sums.items():
                try:
                    with (folder / name).open("rb") as file:
                        right = hashlib.file_digest(file, "sha256").hexdigest() == expected
                except OSError:
                    found.append(Damage(record["id"], name, "it is missing or cannot be read"))
                else:
                    if not right:
                        found.append(
                            Damage(
                                record["id"],
                                name,
                                "its SHA-256 is not the one of the manifest: its content has changed",
                            )
                        )
            on_progress(number, len(self), f"{number} of {len(self)} items")
        return tuple(found)

    def __repr__(self) -> str:
        return f"open_store({str(self.path)!r})"


def read_recipe(path: Path) -> Recipe | None:
    """The recipe of the store in a folder, or None if the folder holds no store.

    Raises:
        StoreError: if `store.json` is damaged or of a newer format.
    """
    try:
        document = json.loads((path / STORE_FILE).read_bytes())
        format, recipe = int(document["format"]), Recipe.from_settings(document["recipe"], STORE_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SettingsError):
        raise StoreError(
            f"{path / STORE_FILE} is damaged or made by another version: prepare into a new folder"
        ) from None
    if format != FORMAT:
        raise StoreError(
            f"{path} has format {format} and this version reads {FORMAT}: install what made it, or prepare again"
        )
    return recipe


def open_store(path: str | Path) -> Store:
    """The store in a folder.

    Example:
        store = open_store("STORE")
        crop = store[0].read(start=(10, 20, 30), size=(96, 96, 96))  # float32 [C, 96, 96, 96]

    Raises:
        StoreError: if there is none, or its lists are damaged.
    """
    path = Path(path)
    recipe = read_recipe(path)
    if recipe is None:
        raise StoreError(f"there is no store in {path}: make one with `wavespark prepare SOURCE --output {path}`")
    lines: list[bytes] = []
    ids: dict[str, int] = {}
    for record in sorted(read_lines(path / MANIFEST, strict=True), key=lambda r: str(r.get("id"))):
        name = record.get("id")
        if not isinstance(name, str) or not ITEM_ID.fullmatch(name) or not isinstance(record.get("files"), dict):
            raise StoreError(f"{path / MANIFEST} is damaged: run the same preparation again, it makes the lists anew")
        if name in ids:
            lines[ids[name]] = encode_line(record)  # made again by a run that did not end: the later line is true
        else:
            ids[name] = len(lines)
            lines.append(encode_line(record))
    return Store(path, recipe, lines, ids)
