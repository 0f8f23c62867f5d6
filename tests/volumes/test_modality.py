"""What the values of a file say about its modality, and what the user states instead."""

import nibabel as nib
import numpy as np
import pytest

from volumes.written import nifti
from wavespark.volumes import (
    NOTES_NOT_FOR_PRETRAINING,
    Override,
    find_sources,
    patient_id,
    read_source,
    read_volumes,
    session_id,
)


def head_ct(seed: int = 0) -> np.ndarray:
    """HU of a ball of brain in a shell of bone in air, [40, 44, 48] int16."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 44, 48)), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    values = np.full(radius.shape, -1000.0) + rng.normal(0, 8, radius.shape)
    brain, bone = radius < 0.75, (radius >= 0.75) & (radius < 0.85)
    values[brain] = rng.normal(33, 7, brain.sum())
    values[bone] = rng.normal(900, 150, bone.sum())
    return np.rint(values).astype(np.int16)


def t1(seed: int = 0) -> np.ndarray:
    """Values of a T1-like MR with Rician noise around it."""
    rng = np.random.default_rng(seed)
    clean = np.where(head_ct(seed) > -500, 420.0, 0.0)
    return np.hypot(clean + rng.normal(0, 15, clean.shape), rng.normal(0, 15, clean.shape)).astype(np.int16)


def read(array, name, tmp_path):
    nib.save(nifti(array), tmp_path / name)
    (volume,) = read_volumes(tmp_path / name).volumes
    return volume


@pytest.mark.parametrize("fill", [None, -2000, -3024])
def test_ct_with_air_is_ct_without_a_guess(fill, tmp_path):
    values = head_ct()
    if fill is not None:
        values[:4] = fill
    volume = read(values, "scan.nii.gz", tmp_path)
    assert volume.modality == "CT"
    assert "modality_guessed" not in volume.notes


@pytest.mark.parametrize(
    "change",
    [lambda v: v.clip(0, None), lambda v: v.clip(0, 200), lambda v: v.clip(-40, 120), lambda v: v.clip(-200, 1000)],
)
def test_clipped_ct_is_taken_for_ct_and_called_a_guess(change, tmp_path):
    volume = read(change(head_ct()), "scan.nii.gz", tmp_path)
    assert volume.modality == "CT"
    assert "modality_guessed" in volume.notes


@pytest.mark.parametrize(
    "array", [t1(), t1().astype(np.float32) / 420, (head_ct().clip(0, 80) * 255 // 80).astype(np.uint8)]
)
def test_what_could_be_either_is_called_a_guess(array, tmp_path):
    volume = read(array, "scan.nii.gz", tmp_path)
    assert volume.modality == "MR"
    assert "modality_guessed" in volume.notes


@pytest.mark.parametrize(("low", "high"), [(-4096, 4095), (-np.pi, np.pi)])
def test_a_phase_image_without_a_name_is_mr_and_noted_as_phase(low, high, tmp_path):
    array = np.random.default_rng(0).uniform(low, high, (20, 21, 22)).astype(np.float32)
    array.ravel()[:2] = low, high
    volume = read(array, "scan.nii.gz", tmp_path)
    assert (volume.modality, volume.contrast) == ("MR", "PHASE")
    assert {"phase", "modality_guessed"} <= set(volume.notes)


def test_a_difference_of_perfusion_images_is_not_ct(tmp_path):
    volume = read(np.random.default_rng(0).normal(0, 400, (20, 21, 22)).astype(np.float32), "scan.nii.gz", tmp_path)
    assert volume.modality == "MR"
    assert "modality_guessed" in volume.notes


def test_values_in_hounsfield_units_win_over_a_name_that_may_mean_a_time_point(tmp_path):
    volume = read(head_ct(), "case3_t1.nii.gz", tmp_path)
    assert (volume.modality, volume.contrast) == ("CT", None)
    assert "modality_guessed" in volume.notes
    volume = read(t1(), "case4_t1.nii.gz", tmp_path)
    assert (volume.modality, volume.contrast) == ("MR", "T1")
    assert "modality_guessed" not in volume.notes


def test_what_the_user_states_wins_over_the_file(tmp_path):
    nib.save(nifti(t1()), tmp_path / "sub-1_ses-2_bold.nii.gz")
    ((source,), _) = find_sources(tmp_path, b"key")
    (as_named,) = read_source(source, b"key")
    assert (as_named.contrast, as_named.patient, as_named.session) == (
        "BOLD", patient_id(b"key", "sub-1"), session_id(b"key", patient_id(b"key", "sub-1"), "ses-2"))  # fmt: skip
    assert set(as_named.notes) & NOTES_NOT_FOR_PRETRAINING
    (volume,) = read_source(
        source, b"key", override=Override(modality="MR", contrast="T1", patient="P7", session="baseline")
    )
    assert (volume.modality, volume.contrast, volume.patient) == ("MR", "T1", patient_id(b"key", "P7"))
    assert volume.session == session_id(b"key", volume.patient, "baseline")
    assert not set(volume.notes) & NOTES_NOT_FOR_PRETRAINING
    (volume,) = read_source(source, b"key", override=Override(contrast="ADC"))
    assert "derived_map" in volume.notes
