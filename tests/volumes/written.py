"""Small DICOM series and other files as scanners, exports and accidents write them."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
MR_CLASS = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_CLASS = "1.2.840.10008.5.1.4.1.1.4.1"
CAPTURE_FRAMES_CLASS = "1.2.840.10008.5.1.4.1.1.7.3"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def head(slices: int = 7, rows: int = 9, columns: int = 11, seed: int = 0) -> np.ndarray:
    """Stored CT numbers [slice, row, column], int16: air at 24, tissue near 1060; no two slices alike."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (slices, rows, columns)), indexing="ij")
    inside = z**2 + y**2 + x**2 < 0.9
    return (np.where(inside, 1060, 24) + rng.integers(0, 20, inside.shape)).astype(np.int16)


@dataclass
class Series:
    """How a series is written. Everything in it can be changed before `write`."""

    stored: np.ndarray = field(default_factory=head)
    row: tuple = (1.0, 0.0, 0.0)
    column: tuple = (0.0, 1.0, 0.0)
    step: tuple = (0.0, 0.0, 2.5)
    origin: tuple = (-40.0, -60.0, 30.0)
    pixel: tuple = (0.7, 0.5)  # between rows, between columns
    modality: str = "CT"
    uid: str = "1.2.826.0.1.3680043.2.1125.1"
    slope: float = 1.0
    intercept: float = -1024.0
    syntax: str = ExplicitVRLittleEndian
    bits: int = 16
    stored_bits: int = 16
    signed: bool = True
    sop_class: str | None = None
    skip: tuple = ()
    name: Callable[[int], str | bytes] = "{:04d}.dcm".format
    change: Callable[[Dataset, int], None] = lambda dataset, k: None
    raw: Callable[[bytes, int], bytes] = lambda data, k: data

    def position(self, k: float) -> np.ndarray:
        """LPS mm of slice k."""
        return np.array(self.origin) + k * np.array(self.step)

    @property
    def affine(self) -> np.ndarray:
        """Index (column, row, slice) to RAS mm."""
        affine = np.eye(4)
        affine[:3, 0] = np.array(self.row) * self.pixel[1]
        affine[:3, 1] = np.array(self.column) * self.pixel[0]
        affine[:3, 2] = self.step
        affine[:3, 3] = self.origin
        return LPS_TO_RAS @ affine

    @property
    def values(self) -> np.ndarray:
        """What a reader must give, [column, row, slice]."""
        return (self.stored.astype(np.float64) * self.slope + self.intercept).T.astype(np.float32)

    def dataset(self, k: int) -> Dataset:
        """Slice k with everything that a scanner writes, and a few things that must never be shown."""
        dataset = Dataset()
        dataset.SOPClassUID = self.sop_class or (CT_CLASS if self.modality == "CT" else MR_CLASS)
        dataset.SOPInstanceUID = f"{self.uid}.{k + 1}"
        dataset.SeriesInstanceUID = self.uid
        dataset.Modality = self.modality
        dataset.PatientID = "PLANTED-ID-4711"
        dataset.PatientName = "PLANTED^NAME"
        dataset.StudyDate = "19700203"
        dataset.InstanceNumber = str(k + 1)
        dataset.ImagePositionPatient = [f"{v:.6f}"[:16] for v in self.position(k)]
        dataset.ImageOrientationPatient = [f"{v:.9f}"[:16] for v in (*self.row, *self.column)]
        dataset.PixelSpacing = list(map(str, self.pixel))
        dataset.SliceThickness = "9.9"
        dataset.SpacingBetweenSlices = "8.8"
        self._image(dataset, self.stored[k])
        dataset.RescaleSlope, dataset.RescaleIntercept = str(self.slope), str(self.intercept)
        self.change(dataset, k)
        return dataset

    def _image(self, dataset: Dataset, stored: np.ndarray) -> None:
        dataset.Rows, dataset.Columns = stored.shape[-2:]
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored = self.bits, self.stored_bits
        dataset.HighBit = self.stored_bits - 1
        dataset.PixelRepresentation = int(self.signed)
        kind = f"{'>' if self.syntax == ExplicitVRBigEndian else '<'}{'i' if self.signed else 'u'}{self.bits // 8}"
        data = stored.astype(kind).tobytes()
        data += b"\x00" * (len(data) % 2)
        if self.syntax == ExplicitVRBigEndian and self.bits == 8:
            data = np.frombuffer(data, ">u2").astype("<u2").tobytes()  # bytes lie in words of the other order
        dataset.PixelData = data
        dataset["PixelData"].VR = "OW"

    def write(self, folder: Path) -> "Series":
        """A file a slice."""
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(len(self.stored)):
            if k not in self.skip:
                name = self.name(k)
                path = bytes(folder) + b"/" + (name if isinstance(name, bytes) else name.encode())
                save(self.dataset(k), path, self.syntax, lambda data, k=k: self.raw(data, k))
        return self

    def enhanced(self, order: list[int] | None = None, slopes: list[float] | None = None) -> Dataset:
        """One multi-frame object: frames in any order, orientation shared, position and slope per frame."""
        order = list(range(len(self.stored))) if order is None else order
        dataset = self.dataset(0)
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
            del dataset[keyword]
        dataset.SOPClassUID = ENHANCED_MR_CLASS if self.modality == "MR" else CT_CLASS + ".1"
        self._image(dataset, self.stored[order])
        dataset.NumberOfFrames = str(len(order))
        shared = Dataset()
        shared.PlaneOrientationSequence = one(ImageOrientationPatient=list(map(str, (*self.row, *self.column))))
        shared.PixelMeasuresSequence = one(PixelSpacing=list(map(str, self.pixel)), SliceThickness="9.9")
        dataset.SharedFunctionalGroupsSequence = Sequence([shared])
        frames = []
        for k in order:
            frame = Dataset()
            frame.PlanePositionSequence = one(ImagePositionPatient=[str(round(v, 6)) for v in self.position(k)])
            slope = self.slope if slopes is None else slopes[k]
            frame.PixelValueTransformationSequence = one(RescaleSlope=str(slope), RescaleIntercept=str(self.intercept))
            frames.append(frame)
        dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
        return dataset


def one(**values: object) -> Sequence:
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return Sequence([item])


def save(dataset: Dataset, path: str | Path | bytes, syntax: str = ExplicitVRLittleEndian, raw: Callable = bytes) -> None:
    """The data set as a DICOM file, its bytes passed through `raw`."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CT_CLASS)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    path = Path(path.decode("utf-8", "surrogateescape")) if isinstance(path, bytes) else Path(path)
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    dcmwrite(path, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    path.write_bytes(raw(path.read_bytes()))


def compress(syntax: str) -> Callable[[Dataset, int], None]:
    """A change that compresses a slice."""

    def change(dataset: Dataset, k: int) -> None:
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, generate_instance_uid=False)

    return change


def without_preamble(data: bytes, k: int) -> bytes:
    """The bare data set, as old software wrote it."""
    length = struct.unpack("<I", data[140:144])[0]
    return data[144 + length :]


def nifti(array: np.ndarray | None = None, affine: np.ndarray | None = None, **header: object) -> nib.Nifti1Image:
    """A NIfTI image with header fields set after nibabel's own."""
    array = head().T.copy() if array is None else array
    affine = np.diag([0.5, 0.7, 2.5, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(array, affine)
    for field_name, value in header.items():
        image.header[field_name] = value
    return image


def nifti_bytes(image: nib.Nifti1Image | None = None, **fields: tuple[int, str, object]) -> bytearray:
    """The bytes of a .nii, with (offset, struct format, value) poked in."""
    data = bytearray((image or nifti()).to_bytes())
    for offset, form, value in fields.values():
        struct.pack_into(form, data, offset, *(value if isinstance(value, tuple) else (value,)))
    return data


def transcode(folder: Path, syntax: str) -> None:
    """Every file of a folder in another transfer syntax, by GDCM, for those that pydicom cannot encode alone."""
    import gdcm

    for path in folder.iterdir():
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
