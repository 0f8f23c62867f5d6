"""Items on disk: compressed arrays and a record with their sums."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wavespark.errors import StoreError
from wavespark.files import Record, encode_line
from wavespark.prepare.manifest import RECORD
from wavespark.prepare.recipe import Recipe
from wavespark.volumes import LABEL_NAME, Volume

if TYPE_CHECKING:
    import blosc2

    from wavespark.prepare.item import Item

VOXELS, FOREGROUND = "voxels.b2nd", "foreground.b2nd"
CHUNK, BLOCK = 128, 32
WORTH = 1.25
"""So much more disk than zstd takes is a fair price for crops that unpack faster; it stays below
gzip (docs/LEDGER.md)."""
ARRAY_FILE = re.compile(rf"voxels\.b2nd|foreground\.b2nd|label_{LABEL_NAME.pattern}\.b2nd")
ITEM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True, slots=True)
class Known:
    """Facts about a volume beside its voxels."""

    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Whole numbers [D, H, W] by name."""
    targets: Mapping[str, float] = field(default_factory=dict)
    """Labels of the whole volume, by name."""
    marks: Sequence[tuple[str, tuple[float, float, float]]] = ()
    """Name and RAS mm."""


def item_files(
    item: "Item", volume: Volume, known: Known, source_id: str, of: int, recipe: Recipe
) -> tuple[Record, dict[str, bytes]]:
    """The record and the files of an item.

    Args:
        item: what to keep.
        volume: where it comes from.
        known: what is known of it.
        source_id: the input that gave it.
        of: how many volumes that input gave.
        recipe: how it was made.
    """
    if not ITEM_ID.fullmatch(volume.id):
        raise StoreError(f"a volume's id must be letters, digits, - or _, got {len(volume.id)} characters that are not")
    files = {VOXELS: _compress(item.numbers), FOREGROUND: _compress(item.foreground.view(np.uint8))}
    files |= {label_file(name): _compress(values) for name, values in known.labels.items()}
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
        "labels": {name: [int(v) for v in np.unique(values)] for name, values in sorted(known.labels.items())},
        "targets": dict(sorted(known.targets.items())),
        "marks": [{"name": name, "mm": list(place)} for name, place in known.marks],
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    return record, files | {RECORD: encode_line(record)}


def _compress(array: np.ndarray) -> bytes:
    """A blosc2 frame, chunks of 128^3, blocks of 32^3, one thread: the same array gives the same
    bytes.

    LZ4HC unpacks two to three times as fast as zstd, and where noise fills the low bytes, as in
    most acquired images, it is little larger.
    """
    import blosc2  # not at the top: a store is looked at without it

    dense, quick = _frame(array, blosc2.Codec.ZSTD), _frame(array, blosc2.Codec.LZ4HC)
    return quick if len(quick) <= WORTH * len(dense) else dense


def _frame(array: np.ndarray, codec: "blosc2.Codec") -> bytes:
    import blosc2

    blosc2.set_nthreads(1)
    chunks = [min(CHUNK, size) for size in array.shape]
    blocks = [min(BLOCK, size) for size in chunks]
    cparams = {
        "codec": codec,
        "clevel": 5,
        # With one byte a number there is nothing to shuffle, but it would take four fifths of the
        # time of unpacking.
        "filters": [blosc2.Filter.SHUFFLE if array.itemsize > 1 else blosc2.Filter.NOFILTER],
        "filters_meta": [0],
        "nthreads": 1,
    }
    return bytes(blosc2.asarray(np.ascontiguousarray(array), chunks=chunks, blocks=blocks, cparams=cparams).to_cframe())


def label_file(name: str) -> str:
    """The file of a label map.

    Raises:
        StoreError: if the name could be a path or a sentence.
    """
    if not LABEL_NAME.fullmatch(name):
        raise StoreError("a label's name must be up to 40 letters, digits, - or _")
    return f"label_{name}.b2nd"
