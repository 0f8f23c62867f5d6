"""A fine-tuned model applied to a store: segmentations and points in the geometry of the sources, probabilities as a table.

FOLDER holds `predictions.json` (what was predicted, by which task), and for segmentation `ID.nii.gz` on the source's own grid, for detection
`points.csv` (RAS mm), for classification `probabilities.csv`, for regression `estimates.csv`. Files are called by the store's ids: names of sources
can identify a patient.
Headers are written fresh.
"""

import csv
import gzip
import io
import json
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
from wavespark.files import write_file, writing
from wavespark.prepare import Store, StoredVolume
from wavespark.prepare.labels import resample_labels
from wavespark.progress import OnProgress, ShouldStop, ignore_progress, never_stop

INDEX, POINTS, PROBABILITIES, ESTIMATES = "predictions.json", "points.csv", "probabilities.csv", "estimates.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What was done."""

    volumes: int
    left_out: int
    """Volumes of a modality that the model has no stem for."""
    files: tuple[str, ...]


def predict_store(
    found: TaskModel,
    store: Store,
    output: Path,
    *,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Predicted:
    """Predicts every volume of the store that the model can take.

    Args:
        found: from `load_model`.
        store: prepared with `found.recipe`.
        output: folder for everything.
        on_progress: called with (done, total, message).
        should_stop: a name (of a signal) ends it.

    Raises:
        SettingsError: if the store was prepared in another way, or holds nothing that the model takes.
        TrainingStopped: if `should_stop` asked for it.
    """
    if differences := store.recipe.differences(found.recipe):
        raise SettingsError(
            f"{store.path} was prepared in another way than the model needs: {'; '.join(differences[:4])}"
        )
    stems = encoder_of(found.model).stem_channels
    volumes = [v for v in store if stems.get(v.modality, stems.get("any")) == v.channels]
    if not volumes:
        raise SettingsError(
            f"{store.path} holds no volume of {' or '.join(sorted(stems))}, which is what the model takes"
        )
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number, volume in enumerate(volumes):
        on_progress(number, len(volumes), f"{number} of {len(volumes)} volumes")
        rows.append({"id": volume.id, **_one(found, volume, output)})
        if asked := should_stop():
            raise TrainingStopped(f"stopped by {asked}: run the same command again", ExitCode.INTERRUPTED)
    files = _tables(found, rows, output)
    document = {"task": found.task.describe(), "volumes": rows, "preparation": found.recipe.fingerprint}
    write_file(output / INDEX, json.dumps(document, indent=1, allow_nan=False).encode())
    on_progress(len(volumes), len(volumes), f"{len(volumes)} volumes")
    return Predicted(volumes=len(rows), left_out=len(store) - len(rows), files=(INDEX, *files))


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
    """The label map as a compressed NIfTI file, sform and qform in mm; the same labels give the same bytes."""
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
