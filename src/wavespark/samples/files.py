"""A synthetic head as files: NIfTI, or a DICOM series as a scanner sends it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from wavespark.errors import SettingsError
from wavespark.samples.heads import SyntheticHead

_CT_INTERCEPT = -1024


def write_nifti(head: SyntheticHead, path: str | Path) -> Path:
    """Writes the voxels as int16 with sform and qform in mm; returns the path (`.nii` or
    `.nii.gz`)."""
    image = nibabel.Nifti1Image(np.rint(head.voxels).astype(np.int16), head.affine)
    image.set_sform(head.affine, code=1)
    image.set_qform(head.affine, code=1)
    image.header.set_xyzt_units("mm")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return Path(path)


def write_dicom(
    head: SyntheticHead,
    folder: str | Path,
    kind: Literal["classic", "enhanced"] = "classic",
    *,
    identifiers: Mapping[str, str] | None = None,
) -> Path:
    """Writes a series of axial slices, a file each (`classic`) or in one file (`enhanced`); returns
    the folder.

    Rows run to the patient's left and columns to the back. Files are named by their SOPInstanceUID,
    whose order says nothing; in the enhanced file the frames are stored out of order.

    Args:
        identifiers: DICOM keyword -> value, for example `{"PatientName": "DOE^JANE"}`; for tests of
            privacy.

    Raises:
        SettingsError: if `kind` is another word.
    """
    if kind not in {"classic", "enhanced"}:
        raise SettingsError(f"a DICOM series is 'classic' or 'enhanced', got {kind!r}")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    stored_SRC = np.rint(head.voxels[::-1, ::-1].transpose(2, 1, 0)) - (_CT_INTERCEPT if head.modality == "CT" else 0)
    frames_SRC = np.ascontiguousarray(np.clip(stored_SRC, 0, 65535).astype("<u2"))
    if kind == "classic":
        _write_classic(head, place, frames_SRC, identifiers or {})
    else:
        _write_enhanced(head, place, frames_SRC, identifiers or {})
    return place


def _write_classic(
    head: SyntheticHead, place: Path, frames_SRC: NDArray[np.uint16], identifiers: Mapping[str, str]
) -> None:
    for k, frame in enumerate(frames_SRC):
        ds = _common(
            head, MRImageStorage if head.modality == "MR" else CTImageStorage, frame, f"slice {k}", identifiers
        )
        ds.InstanceNumber = k + 1
        ds.ImagePositionPatient = _numbers(_position(head, k))
        ds.ImageOrientationPatient = _numbers(_orientation(head))
        ds.PixelSpacing = _numbers((head.spacing[1], head.spacing[0]))
        ds.SliceThickness = _numbers((head.spacing[2],))[0]
        if head.modality == "CT":
            ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = _CT_INTERCEPT, 1, "HU"
            ds.WindowCenter, ds.WindowWidth = 150, 600
        ds.save_as(place / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)


def _write_enhanced(
    head: SyntheticHead, place: Path, frames_SRC: NDArray[np.uint16], identifiers: Mapping[str, str]
) -> None:
    order = np.argsort((np.arange(len(frames_SRC)) * 7919) % (len(frames_SRC) + 1), kind="stable")
    ds = _common(
        head,
        EnhancedMRImageStorage if head.modality == "MR" else EnhancedCTImageStorage,
        frames_SRC[order],
        "enhanced",
        identifiers,
    )
    ds.InstanceNumber = 1
    ds.NumberOfFrames = len(order)
    measures, plane, values = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = _numbers((head.spacing[1], head.spacing[0]))
    measures.SliceThickness = measures.SpacingBetweenSlices = _numbers((head.spacing[2],))[0]
    plane.ImageOrientationPatient = _numbers(_orientation(head))
    values.RescaleIntercept, values.RescaleSlope = (_CT_INTERCEPT if head.modality == "CT" else 0), 1
    values.RescaleType = "HU" if head.modality == "CT" else "US"
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([plane])
    shared.PixelValueTransformationSequence = Sequence([values])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence([_frame_groups(head, int(k)) for k in order])
    ds.save_as(place / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)


def _frame_groups(head: SyntheticHead, k: int) -> Dataset:
    content, plane, groups = Dataset(), Dataset(), Dataset()
    content.StackID, content.InStackPositionNumber = "1", k + 1
    plane.ImagePositionPatient = _numbers(_position(head, k))
    groups.FrameContentSequence = Sequence([content])
    groups.PlanePositionSequence = Sequence([plane])
    return groups


def _common(
    head: SyntheticHead, sop_class: UID, pixels: NDArray[np.uint16], instance: str, identifiers: Mapping[str, str]
) -> FileDataset:
    what = (head.seed, head.contrast, head.voxels.shape, head.affine.tolist(), head.labels, head.sac, dict(identifiers))
    key = f"wavespark synthetic head {what}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[key, instance])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = (
        generate_uid(entropy_srcs=[key, u]) for u in ("study", "series", "frame")
    )
    ds.Modality = head.modality
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesDescription = f"{head.contrast} synthetic"
    ds.PatientName, ds.PatientID = "SYNTHETIC^HEAD", f"synthetic-{head.seed}"
    ds.BodyPartExamined, ds.PatientPosition, ds.SeriesNumber = "HEAD", "HFS", 1
    if head.contrast == "CTA":
        ds.ContrastBolusAgent, ds.KVP = "Iodine", "120"
    elif head.contrast == "T1":
        ds.ContrastBolusAgent = "Gadolinium"
    if head.modality == "MR":
        ds.ScanningSequence = "SE" if head.contrast == "T2" else "GR"
        ds.MRAcquisitionType = "3D"
        if head.contrast == "TOF-MRA":
            ds.AngioFlag = "Y"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelData = pixels.tobytes()
    for keyword, value in identifiers.items():
        setattr(ds, keyword, value)
    return ds


def _position(head: SyntheticHead, k: int) -> NDArray[np.float64]:
    """LPS mm of the first pixel of slice k, which is the most right and most anterior voxel of the
    head."""
    d, h, _ = head.voxels.shape
    return np.asarray((head.affine @ (d - 1, h - 1, k, 1))[:3] * (-1, -1, 1))


def _orientation(head: SyntheticHead) -> NDArray[np.float64]:
    """LPS directions along a row (towards the left) and down a column (towards the back)."""
    along_row, down_column = (-head.affine[:3, i] / np.linalg.norm(head.affine[:3, i]) * (-1, -1, 1) for i in (0, 1))
    return np.concatenate([along_row, down_column])


def _numbers(values: NDArray[np.float64] | tuple[float, ...]) -> list[str]:
    """Decimal strings of at most 16 characters, as DICOM demands."""
    return [f"{float(v):.8g}" if v else "0" for v in values]
