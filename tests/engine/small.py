"""Small stores and settings: heads of a few dozen voxels, steps of a few dozen milliseconds."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from wavespark.config import PretrainSettings, load_pretraining
from wavespark.prepare import Store, open_store, prepare

SHAPE = (40, 72, 40)
WORDS = (
    "data.crop=[24, 24, 24]",
    "data.batch=2",
    "data.workers=0",
    "decoder.widths=[32, 24]",
    "decoder.depths=[1, 1]",
    "decoder.heads=[2, 2]",
    "run.steps=6",
    "run.threads=1",
    "run.checkpoint_every=2",
    "run.validate_every=3",
    "run.held_out_crops=2",
    "run.tensorboard=false",
    "run.seed=3",
)


def head_voxels(seed: int = 0, modality: str = "MR", shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """An ellipsoid of smooth structure in air: large blobs, sheets and a bright rim. CT in HU. float32."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2) / 0.98
    blobs = sum(a * ndimage.gaussian_filter(rng.standard_normal(shape), s) * s**1.5 for a, s in ((1, 2.0), (1, 4.0)))
    inside = 100 * (1 + 0.5 * np.sin(9 * x + rng.uniform(0, 6)) * np.cos(7 * y) + 0.4 * blobs) + 60 * (radius > 0.88)
    if modality == "CT":
        return np.rint(np.where(radius < 1, 40 + 0.6 * (inside - 100) + 800 * (radius > 0.9), -1000)).astype(np.float32)
    return np.rint(np.where(radius < 1, inside.clip(min=30), rng.uniform(0, 3, shape))).astype(np.float32)


def write_volume(path: Path, seed: int, modality: str = "MR", shape: tuple[int, int, int] = SHAPE) -> Path:
    """The head as int16 NIfTI at 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(head_voxels(seed, modality, shape).astype(np.int16), np.eye(4)), path)
    return path


def make_store(folder: Path, modalities: Sequence[str] = ("MR", "MR", "CT")) -> Store:
    """A store of one head a modality named, each of a patient of its own."""
    for i, modality in enumerate(modalities):
        kind = "ct" if modality == "CT" else "T1w"
        write_volume(folder / "data" / f"sub-{i:02d}" / f"sub-{i:02d}_{kind}.nii.gz", i, modality)
    prepare(folder / "data", folder / "store")
    return open_store(folder / "store")


def small_settings(*words: str) -> PretrainSettings:
    """`tiny-cpu`, made smaller."""
    return load_pretraining("tiny-cpu", [*WORDS, *words])


@pytest.fixture(scope="session")
def mixed_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two MR heads and a CT head."""
    return make_store(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="session")
def mr_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One MR head."""
    return make_store(tmp_path_factory.mktemp("mr"), ("MR",))
