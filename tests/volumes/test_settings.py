"""Settings of reading cannot be wrong, and names give modality and contrast from a closed vocabulary."""

import json

import numpy as np
import pytest

from wavespark.errors import SettingsError, VolumeError
from wavespark.volumes import (
    CONTRASTS,
    NOT_FOR_PRETRAINING,
    NOTES_NOT_FOR_PRETRAINING,
    STRUCTURAL,
    AssumedGeometry,
    Override,
    ReadingSettings,
    Volume,
    affine_from_axes,
)
from wavespark.volumes.contrasts import contrast_of
from wavespark.volumes.naming import kind_of


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


@pytest.mark.parametrize("wrong", [{"modality": "PT"}, {"contrast": "T9"}, {"patient": ""}, {"session": ""}])
def test_an_impossible_override_is_an_error(wrong):
    with pytest.raises(SettingsError):
        Override(**wrong)


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
        ("sub-01_bold.nii.gz", "MR", "BOLD"),
        ("mprage_patient_smith.mgz", "MR", "T1"),
        ("scan.nii.gz", None, None),
        ("sub-1_ncct.nii.gz", "CT", None),
        ("CT_brain_12.nii.gz", "CT", None),
        ("ct-001.nii", "CT", None),
        ("patient_t1_ct.nii.gz", "CT", None),
        ("ncct/001.nii.gz", "CT", None),
        ("data/MRI/001.nii.gz", "MR", None),
        ("case3_t1.nii.gz", None, "T1"),
        ("sub-01/fmap/sub-01_phase1.nii.gz", "MR", "PHASE"),
        ("sub-01_phasediff.nii.gz", "MR", "FIELDMAP"),
        ("sub-01_part-phase_bold.nii.gz", "MR", "PHASE"),
        ("sub-01_asl.nii.gz", "MR", "ASL"),
        ("dwi_dir80_FA.nii.gz", "MR", "FA"),
        ("ep2d_diff_ADC.nii.gz", "MR", "ADC"),
        ("ct_perfusion_CBF.nii.gz", "CT", "CBF"),
        ("sub-1/dwi/sub-1_desc-trace.nii.gz", "MR", "TRACE"),
    ],
)
def test_a_name_tells_modality_and_contrast(name, modality, contrast, tmp_path):
    kind = kind_of(bytes(tmp_path / name), name)
    assert kind[:2] == (modality, contrast)
    assert (kind.note in NOTES_NOT_FOR_PRETRAINING) == (contrast in NOT_FOR_PRETRAINING)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, ("MR", "PHASE", "phase")),
        ({"Modality": "MR", "SeriesDescription": "ADC (10^-6 mm2/s)"}, ("MR", "ADC", "derived_map")),
        ({"Modality": "MR", "TaskName": "rest"}, ("MR", "BOLD", "functional")),
        ({"KVP": 120, "ConvolutionKernel": "H30s"}, ("CT", None, None)),
        ({"EchoTime": 0.09, "RepetitionTime": 4.0}, ("MR", "T2", None)),
        ({"Modality": "MR", "ScanningSequence": "EP"}, ("MR", None, "functional")),
    ],
)
def test_a_sidecar_tells_kind_and_modality(document, expected, tmp_path):
    (tmp_path / "scan.json").write_text(json.dumps(document))
    assert kind_of(bytes(tmp_path / "scan.nii.gz"), "scan.nii.gz") == expected


@pytest.mark.parametrize(
    ("words", "contrast"),
    [
        ("AX T1 OPP PHASE", "T1"), ("t2 arterial phase", "T2"), ("Pha_Images", "PHASE"), ("SWI_Images", "SWI"), ("mIP_Images(SW)", "MIP"),
        ("AAHead_Scout", "LOCALIZER"), ("T1 MAP", "T1MAP"), ("Ax DWI EPI", "DWI"), ("TOF MRA MIP", "MIP"), ("CTA head", "CTA"),
        ("Axial EPI-FMRI", None), ("FLASH FA 20", None), ("relCBF", "CBF"), ("B0 map", "FIELDMAP"), ("t1_se_subtraction", "SUBTRACTION"),
    ],
)  # fmt: skip
def test_a_description_tells_the_kind(words, contrast):
    assert contrast_of(words) == contrast


def test_a_sidecar_tells_the_modality_and_damage_in_it_nothing(tmp_path):
    (tmp_path / "a.json").write_text('{"Modality": "CT"}')
    (tmp_path / "b.json").write_text("[" * 100000)
    (tmp_path / "c.json").write_text('{"Modality": ["MR"]}')
    assert kind_of(bytes(tmp_path / "a.nii.gz")).modality == "CT"
    assert kind_of(bytes(tmp_path / "b.nii")).modality is None
    assert kind_of(bytes(tmp_path / "c.nii")).modality is None


def test_every_contrast_that_words_can_give_is_in_the_vocabulary():
    words = ["T1w", "t2 star", "PD", "flair", "dwi", "CTA head", "TOF mra"]
    assert {contrast_of(w) for w in words} == set(STRUCTURAL)
    assert set(CONTRASTS) == {*STRUCTURAL, *NOT_FOR_PRETRAINING}


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
