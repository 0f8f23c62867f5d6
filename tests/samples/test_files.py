"""A head written to disk is the same head for other people's readers."""

from functools import cache

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from wavespark.errors import SettingsError
from wavespark.samples import Aneurysm, synthetic_head, write_dicom, write_nifti

CONTRASTS = ("CTA", "TOF-MRA")
KINDS = ("classic", "enhanced")


@cache
def lopsided_head(contrast):
    return synthetic_head(
        3,
        contrast,
        shape=(40, 48, 21),
        spacing=(2.1, 1.9, 4.0),
        aneurysm=Aneurysm("Middle Cerebral Artery", "Left", 8.0),
    )


def read_with_pydicom(folder):
    """Voxels `[i, j, k]` and RAS affine, from the tags alone, ordered by position."""
    frames = []
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        pixels = ds.pixel_array
        if "SharedFunctionalGroupsSequence" in ds:
            shared = ds.SharedFunctionalGroupsSequence[0]
            place = [g.PlanePositionSequence[0].ImagePositionPatient for g in ds.PerFrameFunctionalGroupsSequence]
            turn = shared.PlaneOrientationSequence[0].ImageOrientationPatient
            step = shared.PixelMeasuresSequence[0].PixelSpacing
            values = shared.PixelValueTransformationSequence[0]
            pixels = pixels * float(values.RescaleSlope) + float(values.RescaleIntercept)
            frames += [
                (np.array(p, float), np.array(turn, float), step, frame) for p, frame in zip(place, pixels, strict=True)
            ]
        else:
            pixels = pixels * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
            frames.append(
                (
                    np.array(ds.ImagePositionPatient, float),
                    np.array(ds.ImageOrientationPatient, float),
                    ds.PixelSpacing,
                    pixels,
                )
            )
    turn, step = frames[0][1], frames[0][2]
    normal = np.cross(turn[:3], turn[3:])
    frames.sort(key=lambda f: f[0] @ normal)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = turn[:3] * float(step[1]), turn[3:] * float(step[0])
    affine[:3, 2] = (frames[-1][0] - frames[0][0]) / (len(frames) - 1)
    affine[:3, 3] = frames[0][0]
    return np.stack([f[3] for f in frames], axis=-1).transpose(1, 0, 2), np.diag([-1, -1, 1, 1]) @ affine


def same_volume(head, voxels, affine):
    """Whether voxels at an affine, in any axis order and direction, are the head to rounding and 0.01 mm."""
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(np.asarray(voxels, np.float64), affine))
    assert image.shape == head.voxels.shape
    assert np.abs(np.asarray(image.dataobj) - head.voxels).max() <= 0.5
    assert np.abs(image.affine - head.affine).max() < 0.01


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_dicom_series_read_by_its_tags_is_the_head(tmp_path, kind, contrast):
    head = lopsided_head(contrast)
    write_dicom(head, tmp_path, kind)
    assert len(list(tmp_path.iterdir())) == (21 if kind == "classic" else 1)
    same_volume(head, *read_with_pydicom(tmp_path))


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_a_classic_series_read_by_simpleitk_is_the_head(tmp_path, contrast):
    head = lopsided_head(contrast)
    write_dicom(head, tmp_path)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    same_volume(head, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine)


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("name", ["head.nii", "head.nii.gz"])
def test_a_nifti_file_read_by_nibabel_is_the_head(tmp_path, contrast, name):
    head = lopsided_head(contrast)
    image = nibabel.load(write_nifti(head, tmp_path / name))
    same_volume(head, image.get_fdata(), image.affine)
    assert np.abs(image.get_qform() - head.affine).max() < 0.01


def test_frames_of_an_enhanced_file_are_stored_out_of_order(tmp_path):
    write_dicom(lopsided_head("CTA"), tmp_path, "enhanced")
    ds = pydicom.dcmread(next(tmp_path.iterdir()))
    heights = [g.PlanePositionSequence[0].ImagePositionPatient[2] for g in ds.PerFrameFunctionalGroupsSequence]
    assert heights != sorted(heights) and heights != sorted(heights, reverse=True)


def test_two_heads_are_two_series_and_the_same_head_is_the_same_series(tmp_path):
    uids = []
    for i, contrast in enumerate(("CTA", "CTA", "TOF-MRA")):
        write_dicom(lopsided_head(contrast), tmp_path / str(i))
        uids.append(
            {pydicom.dcmread(p, stop_before_pixels=True).SeriesInstanceUID for p in (tmp_path / str(i)).iterdir()}
        )
    assert all(len(u) == 1 for u in uids)
    assert uids[0] == uids[1] != uids[2]


@pytest.mark.parametrize("kind", KINDS)
def test_planted_identifiers_are_in_every_file(tmp_path, kind):
    planted = {"PatientName": "DOE^JANE", "PatientID": "12345678", "StudyDate": "20240131"}
    write_dicom(lopsided_head("CTA"), tmp_path, kind, identifiers=planted)
    for path in tmp_path.iterdir():
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert {k: str(ds[k].value) for k in planted} == planted


def test_an_unknown_kind_of_series_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="classic"):
        write_dicom(lopsided_head("CTA"), tmp_path, "mosaic")
