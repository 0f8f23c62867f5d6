"""DICOM series to measure with: written quickly, as large as asked for, with the noise of a
scanner."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from wavespark.shapes import Triple


def ct_numbers(shape: Triple, seed: int) -> np.ndarray:
    """HU + 1024 of a skull with brain in air, int16 [slice, row, column]; shape is columns, rows,
    slices."""
    rng = np.random.default_rng(seed)
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    radius = (z[:, None, None] / 0.95) ** 2 + (y[None, :, None] / 0.85) ** 2 + (x[None, None, :] / 0.7) ** 2
    out = np.full(radius.shape, 24, np.int16)
    out[radius < 1] = 1900
    out[radius < 0.85] = 1060
    out[radius < 0.03] = 1030
    for k in range(len(out)):  # the noise of a whole volume at once would need four times its memory
        out[k] += (12 * rng.standard_normal(out[k].shape, dtype=np.float32)).astype(np.int16)
    return np.clip(out, 0, 4095)


def write_ct(folder: Path, shape: Triple, spacing: tuple[float, float, float], seed: int) -> Path:
    """An uncompressed axial CT series, a file a slice; returns the folder.

    Args:
        folder: where to.
        shape: columns, rows, slices.
        spacing: mm between columns, rows, slices.
        seed: decides noise and UIDs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uid = f"1.2.826.0.1.3680043.2.1125.77.{seed}"
    for k, plane in enumerate(ct_numbers(shape, seed)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID(f"{uid}.{k + 1}")
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = Dataset()
        data.file_meta = meta
        data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = CTImageStorage, f"{uid}.{k + 1}", uid
        data.StudyInstanceUID, data.FrameOfReferenceUID = f"{uid}.0", f"{uid}.0.1"
        data.PatientID, data.Modality, data.InstanceNumber = f"bench-{seed}", "CT", k + 1
        data.PatientName, data.SeriesNumber, data.StudyDate, data.StudyTime = f"bench-{seed}", 1, "20000101", "000000"
        data.ImagePositionPatient = [-spacing[0] * shape[0] / 2, -spacing[1] * shape[1] / 2, k * spacing[2]]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        data.Rows, data.Columns = plane.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = plane.astype("<u2").tobytes()
        dcmwrite(folder / f"{k:04d}.dcm", data, enforce_file_format=True)
    return folder
