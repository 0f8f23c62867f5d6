"""Settings of reading cannot be wrong, and names give modality and contrast from a closed vocabulary."""

import numpy as np
import pytest

from wavespark.errors import SettingsError, VolumeError
from wavespark.volumes import CONTRASTS, AssumedGeometry, ReadingSettings, Volume, affine_from_axes
from wavespark.volumes.naming import contrast_of, kind_of


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_voxels": 0},
        {"modality": "PT"},
        {"contrast": "T9"},
    ],
)
def test_an_impossible_setting_is_an_error_with_the_value(wrong):
    with pytest.raises(SettingsError, match=str(next(iter(wrong.values())))):
        ReadingSettings(**wrong)


@pytest.mark.parametrize(
    ("spacing", "axes"), [((1, 1), "LPS"), ((1, 1, 0), "LPS"), ((1, 1, 1), "LLS"), ((1, 1, 1), "LP"), ((1, 1, 1), "XYZ"), ("abc", "LPS")]
)
def test_an_impossible_geometry_is_an_error(spacing, axes):
    with pytest.raises(SettingsError):
        AssumedGeometry(spacing=spacing, axes=axes)


def test_axes_letters_give_the_affine():
    np.testing.assert_array_equal(
        affine_from_axes("PIR", (1.0, 2.0, 3.0)), [[0, 0, 3, 0], [-1, 0, 0, 0], [0, -2, 0, 0], [0, 0, 0, 1]]
    )


@pytest.mark.parametrize(
    ("name", "modality", "contrast"),
    [
        ("sub-01/anat/sub-01_T1w.nii.gz", "MR", "T1"),
        ("sub-01_acq-highres_T2w.nii", "MR", "T2"),
        ("sub-01_FLAIR.nii.gz", "MR", "FLAIR"),
        ("sub-01_acq-tof_angio.nii.gz", "MR", "MRA"),
        ("sub-01_PDw.nii.gz", "MR", "PD"),
        ("sub-01_ct.nii.gz", "CT", None),
        ("head_cta.nii.gz", "CT", "CTA"),
        ("sub-01_bold.nii.gz", None, None),
        ("mprage_patient_smith.mgz", None, "T1"),
        ("scan.nii.gz", None, None),
    ],
)
def test_a_name_tells_modality_and_contrast(name, modality, contrast, tmp_path):
    assert kind_of(bytes(tmp_path / name)) == (modality, contrast)


def test_a_sidecar_tells_the_modality_and_damage_in_it_nothing(tmp_path):
    (tmp_path / "a.json").write_text('{"Modality": "CT"}')
    (tmp_path / "b.json").write_text("[" * 100000)
    (tmp_path / "c.json").write_text('{"Modality": ["MR"]}')
    assert kind_of(bytes(tmp_path / "a.nii.gz")).modality == "CT"
    assert kind_of(bytes(tmp_path / "b.nii")).modality is None
    assert kind_of(bytes(tmp_path / "c.nii")).modality is None


def test_every_contrast_that_words_can_give_is_in_the_vocabulary():
    words = ["T1w", "t2 star", "PD", "flair", "dwi", "CTA head", "TOF mra"]
    assert {contrast_of(w) for w in words} == set(CONTRASTS)


def test_a_volume_refuses_what_it_cannot_be():
    right = {"voxels": np.zeros((1, 2, 3, 4), np.float32), "affine": np.eye(4), "modality": "MR", "contrast": None, "id": "a",
             "patient": "b", "content": "c"}  # fmt: skip
    assert Volume(**right).spacing == (1.0, 1.0, 1.0)
    for wrong in (
        {"voxels": np.zeros((2, 3, 4), np.float32)},
        {"voxels": np.zeros((1, 2, 3, 4))},
        {"affine": np.eye(3)},
        {"modality": "PT"},
        {"valid": np.zeros((4, 3, 2), bool)},
    ):
        with pytest.raises(VolumeError):
            Volume(**(right | wrong))
