"""A fine-tuned model applied to a store: segmentations and points in the geometry of the sources,
probabilities as a table.

FOLDER holds `predictions.json` (what was predicted, by which task), and for segmentation
`ID.nii.gz` on the source's own grid, for detection `points.csv` (RAS mm), for classification
`probabilities.csv`, for regression `estimates.csv`. Files are called by the store's ids: names of
sources can identify a patient. Headers are written fresh.
"""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from wavespark.downstream.classify import Classify
from wavespark.downstream.detect import Detect, Finds
from wavespark.downstream.heads import encoder_of
from wavespark.downstream.regress import Regress
from wavespark.downstream.saving import TaskModel
from wavespark.errors import ExitCode, SettingsError, TrainingStopped
from wavespark.files import append, write_file, writing
from wavespark.prepare import Store, StoredVolume
from wavespark.prepare.labels import resample_labels
from wavespark.progress import Log, OnProgress, ShouldStop, ignore_log, ignore_progress, never_stop

INDEX, POINTS, PROBABILITIES, ESTIMATES = "predictions.json", "points.csv", "probabilities.csv", "estimates.csv"
JOURNAL = "progress.jsonl"
"""Finished volumes, for a run that goes on after this one was stopped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """Summary of a prediction."""

    volumes: int
    """Volumes with a prediction, those of earlier runs included."""
    left_out: int
    """Volumes of a modality that the model has no stem for, or was not trained on."""
    files: tuple[str, ...]
    earlier: int = 0
    """Volumes that an earlier run of the same command had finished."""


def predict_store(
    found: TaskModel,
    store: Store,
    output: Path,
    *,
    force: bool = False,
    on_progress: OnProgress = ignore_progress,
    log: Log = ignore_log,
    should_stop: ShouldStop = never_stop,
) -> Predicted:
    """Predict every volume of the store that the model can take; volumes that are done already are
    not done again.

    Each volume is recorded in `progress.jsonl` when its file is on the disk, with the file's
    checksum, the content of the volume and the model. An entry that fits all of them is kept.

    Args:
        found: from `load_model`.
        store: prepared with `found.recipe`.
        output: folder for everything.
        force: predict also volumes of a modality that the model was not trained on.
        on_progress: called with (volumes done, volumes to do, text); volumes of earlier runs are
            not counted.
        log: called with a sentence about volumes that are left out or predicted against the
            training.
        should_stop: the name of a signal ends it; finished volumes are kept.

    Raises:
        SettingsError: if the store was prepared in another way, or holds nothing that the model
            takes.
        TrainingStopped: if `should_stop` asked for it.
    """
    if differences := store.recipe.differences(found.recipe):
        raise SettingsError(
            f"{store.path} was prepared in another way than the model needs: {'; '.join(differences[:4])}"
        )
    volumes = _usable(found, store, force, log)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    journal = _Journal(output, model_fingerprint(found))
    rows = {volume.id: row for volume in volumes if (row := journal.row(volume)) is not None}
    todo, earlier = [volume for volume in volumes if volume.id not in rows], len(rows)
    words = f" ({earlier} more of an earlier run)" if earlier else ""
    for number, volume in enumerate(todo):
        on_progress(number, len(todo), f"{number} of {len(todo)} volumes{words}")
        rows[volume.id] = {"id": volume.id, **_one(found, volume, output)}
        journal.add(volume, rows[volume.id])
        if signal := should_stop():
            raise TrainingStopped(
                f"stopped by {signal} with {len(rows)} of {len(volumes)} volumes done: run the same command again, "
                "it goes on with the others",
                ExitCode.INTERRUPTED,
            )
    ordered = [rows[volume.id] for volume in volumes]
    files = _tables(found, ordered, output)
    document = {"task": found.task.describe(), "volumes": ordered, "preparation": found.recipe.fingerprint}
    write_file(output / INDEX, json.dumps(document, indent=1, allow_nan=False).encode())
    on_progress(len(todo), len(todo), f"{len(todo)} volumes{words}")
    return Predicted(volumes=len(ordered), left_out=len(store) - len(ordered), files=(INDEX, *files), earlier=earlier)


def _usable(found: TaskModel, store: Store, force: bool, log: Log) -> list[StoredVolume]:
    """The volumes that the model takes and, unless forced, was trained on."""
    stems = encoder_of(found.model).stem_channels
    volumes = [v for v in store if stems.get(v.modality, stems.get("any")) == v.channels]
    if not volumes:
        raise SettingsError(
            f"{store.path} holds no volume of {' or '.join(sorted(stems))}, which is what the model takes"
        )
    trained = found.modalities
    foreign = [v for v in volumes if trained and v.modality not in trained]
    if not foreign:
        return volumes
    others = ", ".join(sorted({v.modality for v in foreign}))
    sentence = f"{len(foreign)} {others} volume(s), and the model was trained on {', '.join(trained)} only"
    if force:
        log(f"predicting {sentence}: nothing is known of how good that is")
        return volumes
    if len(foreign) == len(volumes):
        raise SettingsError(f"{store.path} holds {sentence}. If that is meant, repeat the command with --force")
    log(f"left out: {sentence}; --force predicts them")
    return [v for v in volumes if v.modality in trained]


def model_fingerprint(found: TaskModel) -> str:
    """Return the SHA-256 of what decides a prediction: weights, task, settings and preparation."""
    parts = {
        "task": found.task.describe(),
        "crop": list(found.task.settings.data.crop),
        "overlap": found.task.settings.run.overlap,
        "preparation": found.recipe.fingerprint,
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for name, tensor in sorted(found.model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Journal:
    """Finished volumes of a folder of predictions, one line each, for the runs after this one."""

    def __init__(self, output: Path, model: str) -> None:
        self._output, self._model = output, model
        self._path = output / JOURNAL
        self._entries = {entry["id"]: entry for entry in self._read() if entry["model"] == model}
        # A killed run may have left half a line, and another model's lines are of no use any more.
        write_file(self._path, b"".join(_line(entry) for entry in self._entries.values()))

    def row(self, volume: StoredVolume) -> dict[str, Any] | None:
        """Return the row of a volume that is done, if its file is what was written."""
        entry = self._entries.get(volume.id)
        if entry is None or entry["content"] != volume.content or entry["sha256"] != self._sum(entry["row"]):
            return None
        return dict(entry["row"])

    def add(self, volume: StoredVolume, row: dict[str, Any]) -> None:
        """Record a volume whose file is on the disk."""
        entry = {
            "id": volume.id,
            "model": self._model,
            "content": volume.content,
            "sha256": self._sum(row),
            "row": row,
        }
        append(self._path, _line(entry))

    def _sum(self, row: dict[str, Any]) -> str | None:
        """Checksum of the row's file; None for a row without one, or whose file is gone."""
        if "file" not in row:
            return None
        try:
            return hashlib.sha256((self._output / Path(row["file"]).name).read_bytes()).hexdigest()
        except OSError:
            return ""

    def _read(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
                row = entry["row"]
                if (
                    isinstance(row, dict)
                    and {"id", "model", "content", "sha256"} <= set(entry)
                    and row["id"] == entry["id"]
                ):
                    yield entry
            except (ValueError, KeyError, TypeError, RecursionError):
                continue


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _one(found: TaskModel, volume: StoredVolume, output: Path) -> dict[str, Any]:
    result = found.task.predict(found.model, volume)
    if isinstance(found.task, Classify):
        return {"probabilities": [round(float(p), 6) for p in result]}
    if isinstance(found.task, Regress):
        return {"estimate": round(result, 6)}
    if isinstance(found.task, Detect):
        return {"points": source_points(result, volume)}
    name = f"{volume.id}.nii.gz"
    on_source = resample_labels(result, volume.affine, volume.source_shape, volume.source_affine)
    write_file(output / name, labels_as_nifti(on_source, volume.source_affine))
    counts = np.bincount(on_source.ravel(), minlength=2)
    millilitres = abs(float(np.linalg.det(volume.source_affine[:3, :3]))) / 1000
    return {"file": name, "ml": {str(k): round(int(c) * millilitres, 3) for k, c in enumerate(counts) if k and c}}


def labels_as_nifti(labels: np.ndarray, affine: np.ndarray) -> bytes:
    """The label map as a compressed NIfTI file, sform and qform in mm; the same labels give the
    same bytes."""
    image = nib.Nifti1Image(labels, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    plain: bytes = image.to_bytes()
    return gzip.compress(plain, compresslevel=6, mtime=0)


def source_points(finds: Finds, volume: StoredVolume) -> list[dict[str, Any]]:
    """Each find in RAS mm and as an index of the source's own grid."""
    mm = finds.index_M3 @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    back = np.linalg.inv(volume.source_affine)
    index = mm @ back[:3, :3].T + back[:3, 3]
    return [
        {"xyz_mm": [round(float(x), 3) for x in m], "ijk": [round(float(x), 2) for x in i], "score": round(float(s), 6)}
        for m, i, s in zip(mm, index, finds.scores_M, strict=True)
    ]


def _tables(found: TaskModel, rows: list[dict[str, Any]], output: Path) -> tuple[str, ...]:
    if isinstance(found.task, Classify):
        lines = [[row["id"], *row["probabilities"]] for row in rows]
        write_file(output / PROBABILITIES, as_csv(["id", *found.task.names], lines))
        return (PROBABILITIES,)
    if isinstance(found.task, Regress):
        write_file(output / ESTIMATES, as_csv(["id", found.task.name], [[row["id"], row["estimate"]] for row in rows]))
        return (ESTIMATES,)
    if isinstance(found.task, Detect):
        lines = [[row["id"], *p["xyz_mm"], *p["ijk"], p["score"]] for row in rows for p in row["points"]]
        write_file(output / POINTS, as_csv(["id", "x", "y", "z", "i", "j", "k", "score"], lines))
        return (POINTS,)
    return tuple(row["file"] for row in rows)


def as_csv(header: list[str], lines: list[list[Any]]) -> bytes:
    """A CSV table, lines ended by a line feed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue().encode()
