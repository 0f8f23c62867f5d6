"""Fixtures: synthetic heads, a folder of them, real volumes."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prepare.heads import as_volume, head_array, write_head
from wavespark.volumes import Volume


@pytest.fixture
def head() -> Callable[..., np.ndarray]:
    return head_array


@pytest.fixture
def volume() -> Callable[..., Volume]:
    return as_volume


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five good heads (one CT) and one damaged file."""
    root = tmp_path / "data"
    for i in range(4):
        write_head(root / f"sub-0{i}" / "anat" / f"sub-0{i}_T1w.nii.gz", i)
    write_head(root / "sub-09" / "head_ct.nii.gz", 9, "CT")
    (root / "broken_T1w.nii.gz").write_bytes((root / "sub-00/anat/sub-00_T1w.nii.gz").read_bytes()[:500])
    return root


@pytest.fixture
def real_data() -> Path:
    """The folder of real volumes that tests may read."""
    default = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    path = Path(os.environ.get("WAVESPARK_SHARED_DATA", default)) / "real"
    if not path.is_dir():
        pytest.skip("no real volumes here: set WAVESPARK_SHARED_DATA")
    return path
