"""Whole slices at the head of the report."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from wavespark.report import read_run, write_report


def write_whole(folder: Path, channels: int = 1, **about: Any) -> Path:
    """Write three slices of a bright disc whose hidden half is predicted at half brightness."""
    d, w = np.meshgrid(np.linspace(-1, 1, 48), np.linspace(-1, 1, 40), indexing="ij")
    disc = np.repeat(((d**2 + w**2) < 0.8)[None, None], channels, 1).repeat(3, 0).astype(np.float32)
    visible = np.zeros((3, 48, 40), np.uint8)
    visible[:, :24] = 1
    hidden = visible[:, None] == 0
    tensors = {
        "original": disc,
        "reconstruction": np.where(hidden, 0.5 * disc, disc).astype(np.float32),
        "harmonic": np.where(hidden, 0.2 * disc, disc).astype(np.float32),
        "visible": visible,
        "foreground": np.ones((3, 48, 40), np.uint8),
    }
    known = {
        "modality": "MR",
        "contrast": "T1",
        "axis": 1,
        "crops": 9,
        "part": "slab",
        "normalised_loss": 0.61,
        "harmonic_own_mean": 0.67,
    }
    path = folder / "examples" / "whole_00000300.safetensors"
    save_file(tensors, path, metadata={"whole": json.dumps(known | about)})
    return path


def test_the_report_opens_with_a_whole_slice_in_four_versions_and_their_scores(run: Path) -> None:
    write_whole(run)
    page = write_report(run).read_text(encoding="utf-8")
    header = page.split("<main>")[0]
    words = re.findall(r"<span>(Original|Visible to the encoder|Predicted|Harmonic inpainting)</span>", header)
    assert words == ["Original", "Visible to the encoder", "Predicted", "Harmonic inpainting"]
    assert "Coronal slice of a slab that no training crop touched (MR T1), put together from 9 crops" in header
    assert "Normalised loss here: 0.610, harmonic inpainting 0.670." in header
    assert page.count("coronal slice of a whole head") == 12
    assert "what it fills in" not in header


def test_a_whole_slice_of_ct_names_its_window(run: Path) -> None:
    write_whole(run, channels=3, modality="CT", contrast="CTA", axis=2, part="volume")
    header = write_report(run).read_text(encoding="utf-8").split("<main>")[0]
    assert "Axial slice of a volume that was never trained on (CT CTA, brain window)" in header


def test_slices_are_turned_as_the_other_pictures_are(run: Path) -> None:
    write_whole(run)
    whole = read_run(run).whole
    assert whole is not None
    volume = np.moveaxis(whole.original[:, 0], 0, 1)  # [D, H = slices, W]
    assert np.array_equal(whole.plane.cut(volume, 1), whole.original[1, 0].T[::-1, ::-1])


@pytest.mark.parametrize("about", [{"axis": 7}, {"axis": None}])
def test_a_damaged_file_of_slices_is_named_and_the_crop_is_shown_instead(run: Path, about: dict[str, Any]) -> None:
    write_whole(run, **about)
    page = write_report(run).read_text(encoding="utf-8")
    assert "whole_00000300.safetensors: cannot be read, so whole slices are left out here." in page
    assert "what it fills in" in page.split("<main>")[0]


def test_a_file_that_claims_other_shapes_is_not_believed(run: Path) -> None:
    path = write_whole(run)
    save_file({"original": np.zeros((3, 1, 8, 8), np.float32)}, path, metadata={"whole": "{}"})
    assert read_run(run).whole is None
