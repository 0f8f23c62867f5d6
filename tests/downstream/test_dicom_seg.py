"""Segmentations as DICOM: on every pixel of the source what was found there, as pydicom and highdicom read it back."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from volumes.written import Series
from wavespark.downstream import dicom_seg
from wavespark.downstream.dicom_seg import dicom_segmentation, write_dicom_segmentations
from wavespark.errors import DependencyError, SettingsError
from wavespark.prepare import open_store, prepare
from wavespark.samples import synthetic_head, write_dicom
from wavespark.volumes import read_volumes

hd = pytest.importorskip("highdicom")

PLACES = {
    "axial": {},
    "sagittal": {"row": (0.0, 1.0, 0.0), "column": (0.0, 0.0, -1.0), "step": (-3.0, 0.0, 0.0)},
    "double oblique": {"row": (0.8, 0.6, 0.0), "column": (-0.48, 0.64, 0.6), "step": (1.08, -1.44, 2.4)},
}


def written(folder: Path, **place: object) -> list[str]:
    """A series with what an archive asks for, its files in order."""
    Series(**place).write(folder)
    files = sorted(folder.rglob("*.dcm"))
    for path in files:
        header = pydicom.dcmread(path)
        header.StudyInstanceUID, header.FrameOfReferenceUID = "1.2.3.4", "1.2.3.5"
        header.save_as(path)
    return [str(p) for p in files]


def classes_of(values: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    return np.digitize(values, cuts).astype(np.uint8)


def check(folder: Path, found: "hd.seg.Segmentation", cuts: np.ndarray) -> None:
    """Every pixel of the series has the class that its own value gives."""
    for path in sorted(folder.rglob("*.dcm")):
        header = pydicom.dcmread(path)
        pixels = header.pixel_array
        if "SharedFunctionalGroupsSequence" in header:
            values = header.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
            numbers = range(1, int(header.NumberOfFrames) + 1)
            mine = found.get_pixels_by_source_frame(header.SOPInstanceUID, numbers, combine_segments=True)
        else:
            values, pixels = header, pixels[None]
            mine = found.get_pixels_by_source_instance(
                [header.SOPInstanceUID], combine_segments=True, assert_missing_frames_are_empty=True
            )
        theirs = classes_of(
            pixels * float(values.get("RescaleSlope", 1)) + float(values.get("RescaleIntercept", 0)), cuts
        )
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("place", PLACES)
def test_every_pixel_of_a_series_has_the_class_of_its_voxel(place, tmp_path):
    files = written(tmp_path, **PLACES[place])
    (volume,) = read_volumes(tmp_path).volumes
    cuts = np.quantile(volume.voxels, (0.6, 0.9))
    found = dicom_segmentation(classes_of(volume.voxels[0], cuts), volume.affine, files[::-1], 3)
    found.save_as(tmp_path / "seg")
    check(tmp_path, hd.seg.segread(tmp_path / "seg"), cuts)


def test_the_frames_of_one_file_too(tmp_path):
    write_dicom(
        synthetic_head(3, "CTA", shape=(40, 48, 21), spacing=(2.1, 1.9, 4.0)), tmp_path / "series", kind="enhanced"
    )
    (volume,) = read_volumes(tmp_path / "series").volumes
    cuts = np.quantile(volume.voxels, (0.6, 0.9))
    (file,) = (tmp_path / "series").iterdir()
    found = dicom_segmentation(classes_of(volume.voxels[0], cuts), volume.affine, [str(file)], 3)
    found.save_as(tmp_path / "seg")
    check(tmp_path / "series", hd.seg.segread(tmp_path / "seg"), cuts)


def test_a_series_that_names_no_study_is_refused_in_a_sentence(tmp_path):
    Series().write(tmp_path)
    (volume,) = read_volumes(tmp_path).volumes
    files = [str(p) for p in sorted(tmp_path.rglob("*.dcm"))]
    with pytest.raises(
        SettingsError, match="no DICOM Segmentation can be made of this series: it lacks StudyInstanceUID"
    ):
        dicom_segmentation(np.zeros(volume.voxels.shape[1:], np.uint8), volume.affine, files, 2)


def test_a_folder_of_predictions_gets_one_for_each_dicom_series(tmp_path):
    write_dicom(synthetic_head(1, "CTA", shape=(40, 48, 21), spacing=(2, 2, 4)), tmp_path / "in" / "a")
    written(tmp_path / "in" / "b")
    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).normal(size=(24, 24, 24)).astype(np.float32), np.eye(4)),
        tmp_path / "in" / "t1.nii.gz",
    )
    prepare([tmp_path / "in"], tmp_path / "store")
    store, said = open_store(tmp_path / "store"), []
    (tmp_path / "out").mkdir()
    for volume in store:
        labels = np.ones(volume.source_shape, np.uint8)
        nib.save(nib.Nifti1Image(labels, volume.source_affine), tmp_path / "out" / f"{volume.id}.nii.gz")
    made = write_dicom_segmentations(store, [tmp_path / "in"], tmp_path / "out", 2, said.append)
    assert len(made) == 2 and len(store) == 3
    assert len(said) == 1 and "not a DICOM series" in said[0]
    for name in made:
        found = hd.seg.segread(tmp_path / "out" / name)
        assert found.SegmentSequence[0].SegmentAlgorithmName == "wavespark"
        assert (found.pixel_array == 1).all()


def test_the_name_of_the_patient_is_in_the_file_and_nowhere_else(tmp_path, capfd, recwarn):
    files = written(tmp_path)
    for path in files:
        header = pydicom.dcmread(path)
        header.PatientName, header.PatientID = "PLANTEDNAME", "PLANTEDID"
        header.save_as(path)
    (volume,) = read_volumes(tmp_path).volumes
    labels = np.ones(volume.voxels.shape[1:], np.uint8)
    found = dicom_segmentation(labels, volume.affine, files, 2, ["vessel"])
    found.save_as(tmp_path / "seg")
    assert found.PatientName == "PLANTEDNAME"
    assert [s.SegmentLabel for s in found.SegmentSequence] == ["vessel"]
    shown = capfd.readouterr()
    assert "PLANTED" not in shown.out + shown.err + " ".join(str(w.message) for w in recwarn)
    for path in files:
        header = pydicom.dcmread(path)
        header.PatientBirthDate = "PLANTEDDATE"
        del header.StudyInstanceUID
        header.save_as(path)
    with pytest.raises(SettingsError) as refused:
        dicom_segmentation(labels, volume.affine, files, 2)
    assert "PLANTED" not in str(refused.value) and refused.value.__cause__ is None
    shown = capfd.readouterr()
    assert "PLANTED" not in shown.out + shown.err


def test_without_highdicom_nothing_is_predicted_first(monkeypatch):
    monkeypatch.setattr(dicom_seg, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'wavespark\[dicom-seg\]'"):
        dicom_seg.require_highdicom()
