"""A store of prepared volumes: opened, counted, read crop by crop, checked.

    STORE/store.json            format and recipe
    STORE/manifest.jsonl        one line a volume: the records of all items
    STORE/quarantine.jsonl      one line a refused input
    STORE/items/ID/             voxels.b2nd, foreground.b2nd, record.json (with the SHA-256 of the others)
    STORE/private/              the secret of the ids, and id -> path; stays on the machine, mode 600

A handle of blosc2 can neither be pickled nor survive a fork: files are opened when first read, once a process.
"""

import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from wavespark.errors import SettingsError, ShapeError, StoreError
from wavespark.prepare.intensity import Encoding
from wavespark.prepare.item import Item
from wavespark.prepare.manifest import MANIFEST, QUARANTINE, RECORD, Record, encode_line, read_lines
from wavespark.prepare.recipe import Recipe
from wavespark.shapes import Triple, as_triple
from wavespark.volumes import Refusal, Volume

FORMAT = 1
STORE_FILE, VOXELS, FOREGROUND = "store.json", "voxels.b2nd", "foreground.b2nd"
CHUNK, BLOCK = 128, 32
_OPEN_AT_ONCE = 64
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def item_files(item: Item, volume: Volume, source_id: str, of: int, recipe: Recipe) -> tuple[Record, dict[str, bytes]]:
    """The record and the files of an item.

    Args:
        item: what to keep.
        volume: where it comes from.
        source_id: the input that gave it.
        of: how many volumes that input gave.
        recipe: how it was made.
    """
    if not _ID.fullmatch(volume.id):
        raise StoreError(f"a volume's id must be letters, digits, - or _, got {len(volume.id)} characters that are not")
    files = {VOXELS: _compress(item.numbers), FOREGROUND: _compress(item.foreground.view(np.uint8))}
    record = {
        "id": volume.id,
        "source_id": source_id,
        "of": of,
        "patient": volume.patient,
        "content": volume.content,
        "modality": volume.modality,
        "contrast": volume.contrast,
        "notes": list(volume.notes),
        "shape": [item.encoding.channels, *item.numbers.shape],
        "affine": item.affine.tolist(),
        "encoding": item.encoding.to_json(),
        "foreground": round(float(item.foreground.mean()), 6),
        "source": {"shape": list(volume.voxels.shape[1:]), "affine": volume.affine.tolist()},
        "recipe": recipe.fingerprint,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    return record, files | {RECORD: encode_line(record)}


def _compress(array: np.ndarray) -> bytes:
    """A blosc2 frame: zstd 5, chunks of 128^3, blocks of 32^3; one thread: the same array gives the same bytes."""
    blosc2.set_nthreads(1)
    chunks = [min(CHUNK, size) for size in array.shape]
    blocks = [min(BLOCK, size) for size in chunks]
    cparams = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": 5,
        "filters": [blosc2.Filter.SHUFFLE],
        "filters_meta": [0],
        "nthreads": 1,
    }
    return bytes(blosc2.asarray(np.ascontiguousarray(array), chunks=chunks, blocks=blocks, cparams=cparams).to_cframe())


class _Items:
    """The files of a store, opened when first read, once a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._open: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def __getstate__(self) -> Path:
        return self.folder

    def __setstate__(self, folder: Path) -> None:
        self.__init__(folder)  # type: ignore[misc]

    def array(self, name: str, file: str) -> Any:
        """The blosc2 array of a file of an item.

        Raises:
            StoreError: if the file is missing or damaged.
        """
        if self._process != os.getpid():
            self._reset()
        key = name, file
        if key not in self._open:
            blosc2.set_nthreads(
                1
            )  # before first use: threads of blosc2 do not survive a fork, and the child would wait for ever
            try:
                array = blosc2.open(str(self.folder / name / file), mode="r", mmap_mode="r")
            except FileNotFoundError:
                raise StoreError(
                    f"{self.folder.parent}: item {name} has no {file}: run the same preparation again"
                ) from None
            except Exception:
                raise _damaged(self.folder.parent, name, file) from None
            if not isinstance(array, blosc2.NDArray):
                raise _damaged(self.folder.parent, name, file)
            self._open[key] = array
            if len(self._open) > _OPEN_AT_ONCE:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]


def _damaged(store: Path, name: str, file: str) -> StoreError:
    return StoreError(
        f"{store}: {file} of item {name} is damaged: delete {store / 'items' / name} and run the same preparation again"
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredVolume:
    """A prepared volume: what it is, and its voxels on demand. Axes D, H, W follow R, A, S."""

    id: str
    """Keyed hash: may be shown."""
    patient: str
    """Pseudonym."""
    content: str
    """SHA-256 of what was read: keys draws and splits."""
    modality: str
    """`MR` or `CT`."""
    contrast: str | None
    shape: tuple[int, int, int, int]
    """Channels, D, H, W."""
    affine: np.ndarray
    """float64 [4, 4]: index of the stored grid to RAS mm."""
    notes: tuple[str, ...]
    """Reason codes of what was odd but usable."""
    encoding: Encoding
    source_shape: Triple
    """Voxels of the volume as it was read."""
    source_affine: np.ndarray
    """float64 [4, 4]: index of the volume as it was read to RAS mm."""
    items: _Items

    @property
    def channels(self) -> int:
        """Channels of `read()`."""
        return self.shape[0]

    @property
    def size(self) -> Triple:
        """Voxels along D, H, W."""
        return self.shape[1:]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres per voxel along D, H, W."""
        d, h, w = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).tolist()
        return d, h, w

    def read(self, start: Sequence[int] | None = None, size: Sequence[int] | None = None) -> np.ndarray:
        """Voxels of a box, or all; only the chunks that it touches are read.

        Args:
            start: first voxel along D, H, W; 0, 0, 0 if None.
            size: voxels along D, H, W; up to the end if None.

        Returns:
            float32 [C, D, H, W].

        Raises:
            ShapeError: if the box is empty or reaches out of the volume.
            StoreError: if the file is missing or damaged.
        """
        return self.encoding.decode(self._numbers(VOXELS, start, size))

    def read_foreground(self, start: Sequence[int] | None = None, size: Sequence[int] | None = None) -> np.ndarray:
        """Which voxels of a box are the head: bool [D, H, W]. Arguments and errors as `read`."""
        return self._numbers(FOREGROUND, start, size).view(np.bool_)

    def _numbers(self, file: str, start: Sequence[int] | None, size: Sequence[int] | None) -> np.ndarray:
        box = self._box(start, size)
        array = self.items.array(self.id, file)
        if array.shape != self.size:
            raise _damaged(self.items.folder.parent, self.id, file)
        try:
            return np.asarray(array[box])
        except Exception:
            raise _damaged(self.items.folder.parent, self.id, file) from None

    def _box(self, start: Sequence[int] | None, size: Sequence[int] | None) -> tuple[slice, slice, slice]:
        first = (0, 0, 0) if start is None else as_triple([int(s) for s in start], "start")
        rest = (
            tuple(n - f for n, f in zip(self.size, first, strict=True))
            if size is None
            else as_triple([int(s) for s in size], "size")
        )
        if any(f < 0 or r < 1 or f + r > n for f, r, n in zip(first, rest, self.size, strict=True)):
            raise ShapeError(
                f"a box from {first} of size {rest} is not inside volume {self.id} of size {self.size}: pad it later"
            )
        d, h, w = (slice(f, f + r) for f, r in zip(first, rest, strict=True))
        return d, h, w

    def __repr__(self) -> str:
        size, step = (" x ".join(format(x, ".4g") for x in xs) for xs in (self.size, self.spacing))
        return f"<StoredVolume {self.id}: {self.modality} {self.contrast or '-'}, {self.channels} x {size} @ {step} mm>"


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
        self._items = _Items(path / "items")

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
                for r in read_lines(self.path / QUARANTINE)
            )
        except KeyError:
            raise StoreError(f"{self.path / QUARANTINE} is damaged: run the same preparation again") from None

    @property
    def bytes(self) -> int:
        """Size of all items on disk."""
        return sum(int(f["bytes"]) for line in self._lines for f in json.loads(line)["files"].values())

    def verify(self, tell: Callable[[float, float, str], None] | None = None) -> tuple[Damage, ...]:
        """Everything that is not as it was written: each item's files by their SHA-256, its record by the manifest."""
        found: list[Damage] = []
        for number, line in enumerate(self._lines, 1):
            record = json.loads(line)
            folder = self._items.folder / record["id"]
            sums = {name: entry["sha256"] for name, entry in record["files"].items() if name in (VOXELS, FOREGROUND)}
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
            if tell:
                tell(number, len(self), f"{number} of {len(self)} items")
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
    for record in sorted(read_lines(path / MANIFEST), key=lambda r: str(r.get("id"))):
        name = record.get("id")
        if not isinstance(name, str) or not _ID.fullmatch(name) or not isinstance(record.get("files"), dict):
            raise StoreError(f"{path / MANIFEST} is damaged: run the same preparation again, it makes the lists anew")
        if name in ids:
            lines[ids[name]] = encode_line(record)  # made again by a run that did not end: the later line is true
        else:
            ids[name] = len(lines)
            lines.append(encode_line(record))
    return Store(path, recipe, lines, ids)
