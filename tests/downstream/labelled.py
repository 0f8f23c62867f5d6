"""A few small heads whose bright tissue is labelled, prepared; and an encoder for them. Shared by the tests of this room."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from engine.small import head_voxels
from wavespark.config.downstream import FinetuneSettings, finetune_settings
from wavespark.downstream import LabelTable, read_labels
from wavespark.engine import export_run
from wavespark.models import Encoder, create_model
from wavespark.prepare import Store, open_store, prepare

SHAPE = (32, 40, 28)
CROP = (16, 16, 16)
WORDS = (
    "data.crop=[16, 16, 16]",
    "data.batch=2",
    "data.augmentation=none",
    "data.workers=1",
    "run.steps=3",
    "run.threads=1",
    "run.overlap=0",
)


@dataclass(frozen=True)
class Small:
    """Paths and values of the fixture."""

    store: Store
    labels: Path
    points: Path
    encoder: Path

    @property
    def table(self) -> LabelTable:
        return read_labels(self.labels, self.store)


def bright(voxels: np.ndarray) -> np.ndarray:
    """Two tissues: 1 bright, 2 brighter."""
    return np.digitize(voxels, (140, 165)).astype(np.uint8)


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_small(folder: Path, patients: int = 4) -> Small:
    """Heads of so many patients: labels with a segmentation, a binary column, a class and lateral names; points at the brightest voxel."""
    rows, points = [], []
    for k in range(patients):
        voxels = head_voxels(k, shape=SHAPE)
        source = f"sub-{k:02d}/sub-{k:02d}_{'T1w' if k % 2 else 'T2w'}.nii.gz"
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        (folder / "data" / source).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), folder / "data" / source)
        (folder / "maps").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(bright(voxels), affine), folder / "maps" / f"{k}.nii.gz")
        rows.append(
            {
                "source": source,
                "label": f"maps/{k}.nii.gz",
                "Left A": k % 2,
                "Right A": 1 - k % 2,
                "kind": "odd" if k % 2 else "even",
            }
        )
        x, y, z = np.unravel_index(voxels.argmax(), voxels.shape)
        points.append(
            {"source": source, "x": x, "y": y, "z": z, "diameter": 6.0}
            if k % 4
            else {"source": source, "x": "", "y": "", "z": "", "diameter": ""}
        )
    prepare(folder / "data", folder / "store")
    store = open_store(folder / "store")
    encoder = fresh_encoder()
    preparation = {"fingerprint": store.recipe.fingerprint, "settings": store.recipe.settings}
    provenance = {"steps": 0, "volumes": patients, "normalised_loss": 1.0, "crop": list(CROP), "hidden_ratio": 0.6}
    export_run(folder / "encoder", encoder, name="waveformer_tiny", preparation=preparation, provenance=provenance)
    return Small(
        store=store,
        labels=write_table(folder / "labels.csv", rows),
        points=write_table(folder / "points.csv", points),
        encoder=folder / "encoder",
    )


def fresh_encoder(seed: int = 0) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_model("waveformer_tiny", stems={"MR": 1}, channels=(12, 24), depths=(1, 1), heads=(1, 2))


def small_finetuning(*words: str, **defaults: object) -> FinetuneSettings:
    return finetune_settings([*WORDS, *words], **defaults)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("labelled"))
