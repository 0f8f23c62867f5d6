"""Inputs that must be refused: each writes itself below a folder; its name and the one reason that must be given."""

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from volumes.written import CAPTURE_FRAMES_CLASS, Series, head, nifti, nifti_bytes, save, transcode

BAD: dict[str, tuple[Callable[[Path], object], str]] = {}


def bad(reason: str) -> Callable:
    """Registers a case under its function's name."""

    def register(write: Callable) -> Callable:
        BAD[write.__name__] = (write, reason)
        return write

    return register


# DICOM series: one thing wrong with all slices or one.


def _series(case: str, reason: str, /, **fields: object) -> None:
    BAD[case] = (lambda folder: Series(**fields).write(folder), reason)


def _changed(case: str, reason: str, keyword: str, value: object, only: int | None = None) -> None:
    """A series where a tag has another value, or is absent (None), in all slices or one."""

    def change(dataset: Dataset, k: int) -> None:
        if only in (None, k):
            if value is None:
                delattr(dataset, keyword)
            elif isinstance(value, str) and keyword in dataset:
                dataset[keyword]._value = value  # past pydicom's own check
            else:
                setattr(dataset, keyword, value)

    _series(case, reason, change=change)


_changed("no_position", "missing_position", "ImagePositionPatient", None)
_changed("no_orientation", "missing_orientation", "ImageOrientationPatient", None)
_changed("no_pixel_spacing", "bad_spacing", "PixelSpacing", None)
_changed("zero_pixel_spacing", "bad_spacing", "PixelSpacing", ["0", "0.5"])
_changed("negative_pixel_spacing", "bad_spacing", "PixelSpacing", ["-0.7", "0.5"])
_changed("a_name_in_the_pixel_spacing", "bad_spacing", "PixelSpacing", "PLANTED^NAME")
_changed("skewed_orientation", "bad_orientation", "ImageOrientationPatient", ["1", "0", "0", "0.5", "0.8660254", "0"])
_changed("zero_orientation", "bad_orientation", "ImageOrientationPatient", ["0"] * 6)
_changed("long_orientation", "bad_orientation", "ImageOrientationPatient", ["2", "0", "0", "0", "1", "0"])
_changed("slope_of_zero", "bad_rescale", "RescaleSlope", "0")
_changed("a_name_in_the_slope", "bad_rescale", "RescaleSlope", "PLANTED^NAME", only=3)
_changed("an_infinite_intercept", "bad_rescale", "RescaleIntercept", "inf", only=3)
_changed("a_name_in_the_position", "missing_position", "ImagePositionPatient", "PLANTED^NAME")
_changed("one_slice_without_position", "missing_slices", "ImagePositionPatient", None, only=3)
_changed("no_pixels", "no_pixel_data", "PixelData", None)
_changed("one_slice_without_pixels", "no_pixel_data", "PixelData", None, only=2)
_changed("one_bit_a_pixel", "unsupported_dtype", "BitsAllocated", 1)
_changed("more_bits_stored_than_there_are", "unsupported_dtype", "BitsStored", 24)
_changed("no_rows", "corrupt", "Rows", None)
_changed("more_rows_than_pixels", "truncated_pixel_data", "Rows", 5000, only=4)
_changed("more_frames_than_pixels", "truncated_pixel_data", "NumberOfFrames", "50000")
_changed("more_frames_than_the_limit", "too_large", "NumberOfFrames", "2000000000")
_changed("rows_and_columns_beyond_the_limit", "too_large", "NumberOfFrames", "99999999", only=0)
_changed("ultrasound_and_its_class", "not_an_image_volume", "SOPClassUID", "1.2.840.10008.5.1.4.1.1.6.1")
_changed("a_presentation_state", "not_an_image_volume", "SOPClassUID", "1.2.840.10008.5.1.4.1.1.11.1")
_changed("a_segmentation", "not_an_image_volume", "SOPClassUID", "1.2.840.10008.5.1.4.1.1.66.4")

_series("one_slice", "too_few_slices", stored=head(1))
_series("two_slices", "too_few_slices", stored=head(2))
_series("a_slice_missing", "missing_slices", stored=head(9), skip=(4,))
_series("two_slices_missing", "missing_slices", stored=head(20), skip=(7, 8))
_series("all_at_one_place", "duplicate_positions", step=(0.0, 0.0, 0.0))
_series("side_by_side_in_one_plane", "degenerate_geometry", step=(5.0, 0.0, 0.0))
_series("constant", "constant_volume", stored=np.full((7, 9, 11), 7, np.int16))
_series("all_padding", "constant_volume", stored=np.full((7, 9, 11), -2000, np.int16),
        change=lambda dataset, k: dataset.add_new("PixelPaddingValue", "SS", -2000))  # fmt: skip
_series("video", "unsupported_transfer_syntax", raw=lambda data, k: _other_syntax(data, b"1.2.840.10008.1.2.4.102"))
_series("an_unknown_syntax", "unsupported_transfer_syntax", raw=lambda data, k: _other_syntax(data, b"1.2.3.4.5.6.7.8.9"))
_series("half_of_a_slice", "truncated_pixel_data", raw=lambda data, k: data[:-90] if k == 3 else data)
_series("spacing_that_no_scanner_has", "bad_spacing", step=(0.0, 0.0, 900.0))


def _other_syntax(data: bytes, uid: bytes) -> bytes:
    """Another transfer syntax of even length in the meta header."""
    old = ExplicitVRLittleEndian.encode() + b"\x00"
    at = data.index(old)
    uid += b"\x00" * (len(uid) % 2)
    length = struct.unpack("<I", data[140:144])[0] + len(uid) - len(old)
    body = data[: at - 2] + struct.pack("<H", len(uid)) + uid + data[at + len(old) :]
    return body[:140] + struct.pack("<I", length) + body[144:]


@bad("nonuniform_spacing")
def a_jump_in_spacing(folder: Path) -> None:
    series = Series()
    place = [0, 2.5, 5, 7.5, 11, 13.5, 16]
    series.change = lambda dataset, k: setattr(dataset, "ImagePositionPatient", ["-40", "-60", str(place[k])])
    series.write(folder)


@bad("nonuniform_spacing")
def thin_slices_then_thick_ones(folder: Path) -> None:
    series = Series(stored=head(12))
    place = [2.5 * k if k < 8 else 17.5 + 5 * (k - 7) for k in range(12)]  # by the median, four slices seem to miss
    series.change = lambda dataset, k: setattr(dataset, "ImagePositionPatient", ["-40", "-60", str(place[k])])
    series.write(folder)


@bad("nonuniform_spacing")
def steps_that_drift(folder: Path) -> None:
    series = Series(stored=head(60, 5, 5))
    place = np.concatenate([[0], np.cumsum(np.repeat([2.5, 2.7], [30, 29]))])
    series.change = lambda dataset, k: setattr(dataset, "ImagePositionPatient", ["-40", "-60", f"{place[k]:.3f}"])
    series.write(folder)


@bad("degenerate_geometry")
def slices_along_a_curve(folder: Path) -> None:
    series = Series()
    series.change = lambda dataset, k: setattr(dataset, "ImagePositionPatient", [str(-40 + k * k), "-60", str(2.5 * k)])
    series.write(folder)


@bad("duplicate_positions")
def one_place_taken_by_two_pictures(folder: Path) -> None:
    Series(name="b{}".format, skip=(0, 1, 2, 4, 5, 6), change=_renamed, stored=head(seed=9)).write(folder)
    Series().write(folder)


@bad("duplicate_positions")
def one_instance_uid_for_two_pictures(folder: Path) -> None:
    Series(name="b{}".format, skip=(0, 1, 2, 4, 5, 6), stored=head(seed=9)).write(folder)
    Series().write(folder)


@bad("duplicate_positions")
def every_place_taken_twice_and_nothing_tells_the_slices_apart(folder: Path) -> None:
    Series(name="b{}".format, change=_renamed, stored=head(seed=9)).write(folder)
    Series().write(folder)


def _renamed_with(**values: object) -> Callable[[Dataset, int], None]:
    """A change that gives other instances and other values."""

    def change(dataset: Dataset, k: int) -> None:
        _renamed(dataset, k)
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


@bad("mixed_acquisitions")
def two_slices_of_another_echo_within_a_volume(folder: Path) -> None:
    Series(skip=(3, 4), change=_renamed_with(EchoTime="15")).write(folder)
    Series(skip=(0, 1, 2, 5, 6), change=_renamed_with(EchoTime="90")).write(folder)


@bad("mixed_acquisitions")
def slices_of_two_kernels_in_a_row_without_a_rule(folder: Path) -> None:
    Series(skip=(0, 3, 4), change=_renamed_with(ConvolutionKernel="H30s"), name="a{}".format).write(folder)
    Series(skip=(1, 2, 5, 6), change=_renamed_with(ConvolutionKernel="H70h")).write(folder)


def _mosaic(case: str, kinds: list[str], **changes: object) -> None:
    def change(dataset: Dataset, k: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", *kinds]
        for keyword, value in changes.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    _series(case, "tiled_slices", modality="MR", change=change)


_mosaic("a_mosaic_without_its_private_header", ["ND", "MOSAIC"], ImagePositionPatient=["0", "0", "0"])
_mosaic("a_grid_of_another_vendor", ["VFRAME"], ImagePositionPatient=None, ImageOrientationPatient=None)


def _renamed(dataset: Dataset, k: int) -> None:
    dataset.SOPInstanceUID += ".9"


@bad("mixed_geometry")
def two_orientations_half_and_half(folder: Path) -> None:
    Series(row=(0.0, 1.0, 0.0), column=(0.0, 0.0, -1.0), name="s{}".format, change=_renamed).write(folder)
    Series().write(folder)


@bad("mixed_geometry")
def two_sizes_half_and_half(folder: Path) -> None:
    Series(stored=head(7, 20, 20), name="s{}".format, change=_renamed, origin=(0.0, 0.0, 90.0)).write(folder)
    Series().write(folder)


@bad("mixed_geometry")
def ct_and_mr_in_one_series(folder: Path) -> None:
    Series(modality="MR", name="m{}".format, change=_renamed, origin=(-40.0, -60.0, 47.5)).write(folder)
    Series().write(folder)


@bad("missing_position")
def frames_without_any_geometry(folder: Path) -> None:
    dataset = Series().enhanced()
    dataset.SOPClassUID = CAPTURE_FRAMES_CLASS
    del dataset["PerFrameFunctionalGroupsSequence"], dataset["SharedFunctionalGroupsSequence"]
    _one(folder, dataset)


@bad("corrupt")
def fewer_frames_described_than_declared(folder: Path) -> None:
    dataset = Series().enhanced()
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    _one(folder, dataset)


@bad("bad_rescale")
def a_slope_of_zero_in_one_frame(folder: Path) -> None:
    _one(folder, Series().enhanced(slopes=[1, 1, 1, 0, 1, 1, 1]))


@bad("missing_slices")
def enhanced_without_a_frame(folder: Path) -> None:
    _one(folder, Series(stored=head(9)).enhanced([0, 1, 2, 3, 5, 6, 7, 8]))


@bad("bad_rescale")
def values_through_a_table(folder: Path) -> None:
    def change(dataset: Dataset, k: int) -> None:
        item = Dataset()
        item.add_new(0x00283002, "US", [2, 0, 16])
        item.add_new(0x00283006, "US", [0, 1])
        dataset.ModalityLUTSequence = [item]

    Series(change=change).write(folder)


@bad("not_an_image_volume")
def colour_pictures(folder: Path) -> None:
    def change(dataset: Dataset, k: int) -> None:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.PixelData = dataset.PixelData * 3

    Series(change=change).write(folder)


@bad("not_an_image_volume")
def a_document(folder: Path) -> None:
    dataset = Series(sop_class="1.2.840.10008.5.1.4.1.1.104.1").dataset(0)
    del dataset["PixelData"], dataset["Rows"]
    _one(folder, dataset)


@bad("not_an_image_volume")
def another_modality(folder: Path) -> None:
    def change(dataset: Dataset, k: int) -> None:
        dataset.SOPClassUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.128", "PT"

    Series(change=change).write(folder)


@bad("unsupported_dtype")
def pixels_of_floats(folder: Path) -> None:
    def change(dataset: Dataset, k: int) -> None:
        del dataset["PixelData"]
        dataset.add_new(0x7FE00008, "OF", b"\x00" * 396)

    Series(change=change).write(folder)


@bad("no_readable_image")
def only_a_dicomdir_and_a_text(folder: Path) -> None:
    _one(folder, Series(sop_class="1.2.840.10008.1.3.10").dataset(0), "DICOMDIR")
    (folder / "PLANTED.txt").write_text("PLANTED")


def _one(folder: Path, dataset: Dataset, name: str = "multi.dcm") -> None:
    folder.mkdir(exist_ok=True)
    save(dataset, folder / name)


# Compressed pixels.


def _spoiled(case: str, reason: str, syntax: str, spoil: Callable[[bytes], bytes]) -> None:
    def write(folder: Path) -> None:
        Series(stored=head(7, 40, 36), signed=False).write(folder)
        transcode(folder, syntax)
        path = folder / "0003.dcm"
        path.write_bytes(spoil(path.read_bytes()))

    BAD[case] = (write, reason)


def _poked(mark: bytes, at: int, new: bytes) -> Callable[[bytes], bytes]:
    def spoil(data: bytes) -> bytes:
        start = data.index(mark) + at
        return data[:start] + new + data[start + len(new) :]

    return spoil


_spoiled("jpeg_2000_of_another_size", "decode_failed", JPEG2000Lossless, _poked(b"\xff\x4f\xff\x51", 8, b"\x7f\xff\xff\xff"))
_spoiled("jpeg_2000_bomb", "decode_failed", JPEG2000Lossless, _poked(b"\xff\x4f\xff\x51", 8, b"\x00\x01\x00\x00\x00\x01"))
_spoiled("jpeg_2000_cut_off", "truncated_pixel_data", JPEG2000Lossless, lambda data: data[:-200])
_spoiled("jpeg_ls_of_another_size", "decode_failed", JPEGLSLossless, _poked(b"\xff\xf7", 5, b"\xff\xff"))
_spoiled("jpeg_ls_cut_off", "truncated_pixel_data", JPEGLSLossless, lambda data: data[:-200])
_spoiled("rle_with_nonsense_in_it", "decode_failed", RLELossless, _poked(b"\x02\x00\x00\x00\x40\x00\x00\x00", 0, b"\x09" * 40))
@bad("decode_failed")
def jpeg_2000_with_its_sides_swapped(folder: Path) -> None:
    """As many pixels as the header says: a decoder alone would give a scrambled picture."""
    Series(stored=head(7, 40, 36)).write(folder)
    transcode(folder, JPEG2000Lossless)
    for path in folder.iterdir():
        dataset = dcmread(path)
        dataset.Rows, dataset.Columns = 36, 40
        dataset.save_as(path)


# DICOM files that are broken as files.


@bad("corrupt")
def dicom_of_random_bytes_after_the_mark(folder: Path) -> None:
    folder.mkdir()
    noise = np.random.default_rng(0).bytes(5000)
    (folder / "a.dcm").write_bytes(bytes(128) + b"DICM" + noise)


@bad("truncated")
def dicom_that_ends_in_its_header(folder: Path) -> None:
    Series(stored=head(1)).write(folder)
    path = next(folder.iterdir())
    path.write_bytes(path.read_bytes()[:200])


@bad("no_pixel_data")
def dicom_that_ends_before_its_pixels(folder: Path) -> None:
    Series(raw=lambda data, k: data[:-420]).write(folder)


@bad("too_large")
def deflated_bomb(folder: Path) -> None:
    Series(stored=head(1), syntax=DeflatedExplicitVRLittleEndian).write(folder)
    path = next(folder.iterdir())
    data = path.read_bytes()
    start = 144 + struct.unpack("<I", data[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(70)) + packer.flush()
    path.write_bytes(data[:start] + bomb)


@bad("corrupt")
def deflated_and_damaged(folder: Path) -> None:
    def raw(data: bytes, k: int) -> bytes:
        return data[:400] + bytes(60) + data[460:]

    Series(syntax=DeflatedExplicitVRLittleEndian, raw=raw).write(folder)


@bad("corrupt")
def sequences_in_sequences_without_end(folder: Path) -> None:
    folder.mkdir()
    nested = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    Series(stored=head(1)).write(folder)
    path = next(folder.iterdir())
    data = path.read_bytes()
    start = 144 + struct.unpack("<I", data[140:144])[0]
    path.write_bytes(data[:start] + nested + data[start:])


@bad("corrupt")
def an_element_longer_than_any_file(folder: Path) -> None:
    folder.mkdir()
    meta = b"\x02\x00\x10\x00UI\x14\x00" + b"1.2.840.10008.1.2.1\x00"
    element = b"\x08\x00\x05\x00UN\x00\x00\xf0\xff\xff\xff"
    (folder / "a.dcm").write_bytes(bytes(128) + b"DICM" + meta + element + b"PLANTED")


@bad("not_dicom")
def text_under_the_name_of_dicom(folder: Path) -> None:
    folder.mkdir()
    (folder / "PLANTED.dcm").write_text("PLANTED " * 100)


@bad("missing_slices")
def a_slice_that_is_empty(folder: Path) -> None:
    Series().write(folder)
    (folder / "0003.dcm").write_bytes(b"")


# NIfTI.


def _nifti(case: str, reason: str, /, name: str = "a.nii", **fields: tuple) -> None:
    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / name).write_bytes(nifti_bytes(**fields))

    BAD[case] = (write, reason)


def _array(case: str, reason: str, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    def write(folder: Path) -> None:
        folder.mkdir()
        nib.save(nifti(array, affine), folder / "a.nii.gz")

    BAD[case] = (write, reason)


_nifti("zero_in_the_matrix", "bad_affine", row=(280, "<4f", (0, 0, 0, 0)))
_nifti("nan_in_the_matrix", "bad_affine", row=(280, "<4f", (np.nan, 0, 0, 0)))
_nifti("infinity_in_the_offset", "bad_affine", row=(280, "<4f", (1, 0, 0, np.inf)))
_nifti("a_quaternion_longer_than_one", "bad_affine", code=(252, "<2h", (1, 0)), q=(256, "<3f", (3, 3, 3)))
_nifti("pixdim_of_zero_and_no_codes", "bad_affine", code=(252, "<2h", (0, 0)), pixdim=(80, "<3f", (0, 1, 1)))
_nifti("steps_of_a_kilometre", "bad_spacing", row=(280, "<4f", (1e6, 0, 0, 0)))
_nifti("an_infinite_scl_slope", "bad_rescale", slope=(112, "<f", np.inf))
_nifti("an_intercept_that_is_not_a_number", "bad_rescale", slope=(112, "<2f", (2, np.nan)))
_nifti("a_dimension_of_zero", "corrupt", dim=(42, "<h", 0))
_nifti("a_negative_dimension", "corrupt", dim=(42, "<h", -5))
_nifti("ninety_dimensions", "not_nifti", dim=(40, "<h", 90), magic=(344, "<4s", b"xxxx"))
_nifti("a_number_of_dimensions_beyond_seven", "corrupt", dim=(40, "<h", 9))
_nifti("a_header_that_lies_within_the_limit", "truncated", dim=(42, "<3h", (500, 500, 500)))
_nifti("a_header_that_lies_beyond_the_limit", "too_large", dim=(42, "<3h", (30000, 30000, 30000)))
_nifti("an_unknown_type", "unsupported_dtype", datatype=(70, "<h", 77))
_nifti("a_type_of_single_bits", "unsupported_dtype", datatype=(70, "<h", 1))
_nifti("voxels_that_begin_nowhere", "corrupt", offset=(108, "<f", 1e20))
_nifti("voxels_that_begin_at_nan", "corrupt", offset=(108, "<f", np.nan))
_nifti("half_of_a_pair", "not_found", magic=(344, "<4s", b"ni1\x00"))

_array("two_dimensions", "single_slice", head()[0])
_array("four_dimensions", "several_volumes", np.stack([head()] * 3, axis=-1))
_array("five_dimensions", "several_volumes", head()[..., None, None].repeat(2, -1))
_array("one_thin_axis", "single_slice", head()[:, :1])
_array("complex_values", "unsupported_dtype", head().astype(np.complex64))
_array("colours", "unsupported_dtype", np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")]))
_array("values_that_are_not_a_number", "non_finite", np.where(head() > 500, np.nan, head()).astype(np.float32))
_array("an_infinite_value", "non_finite", np.where(head() == head().max(), np.inf, head()).astype(np.float32))
_array("values_beyond_single_precision", "non_finite", head().astype(np.float64) * 1e300)
_array("constant_values", "constant_volume", np.full((5, 6, 7), 3.0, np.float32))


@bad("truncated")
def nifti_cut_off(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.nii").write_bytes(nifti_bytes()[:-100])


@bad("truncated")
def nifti_cut_off_in_its_header(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.nii").write_bytes(nifti_bytes()[:350])


@bad("truncated")
def gzip_cut_off(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes(gzip.compress(bytes(nifti_bytes()))[:-20])


@bad("truncated")
def gzip_without_its_checksum(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes(gzip.compress(bytes(nifti_bytes()))[:-8])


@bad("corrupt")
def gzip_with_a_wrong_checksum(folder: Path) -> None:
    folder.mkdir()
    data = bytearray(gzip.compress(bytes(nifti_bytes())))
    data[-6] ^= 1
    (folder / "a.nii.gz").write_bytes(data)


@bad("corrupt")
def gzip_with_rubbish_after_it(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes(gzip.compress(bytes(nifti_bytes())) + b"rubbish" * 10)


@bad("too_large")
def gzip_bomb_behind_a_small_volume(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes(gzip.compress(bytes(nifti_bytes()) + bytes(3 << 20)))


@bad("truncated")
def gzip_that_inflates_to_less_than_declared(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes(gzip.compress(bytes(nifti_bytes(dim=(42, "<3h", (300, 300, 300)))) + bytes(3 << 20)))


@bad("not_nifti")
def text_under_the_name_of_nifti(folder: Path) -> None:
    folder.mkdir()
    (folder / "PLANTED.nii.gz").write_bytes(b"PLANTED " * 100)


@bad("wrong_extension")
def a_zip_under_the_name_of_nifti(folder: Path) -> None:
    folder.mkdir()
    (folder / "PLANTED.nii.gz").write_bytes(b"PK\x03\x04" + bytes(500))


@bad("not_an_image_volume")
def a_pet_by_its_name(folder: Path) -> None:
    folder.mkdir()
    nib.save(nifti(), folder / "sub-01_pet.nii.gz")


@bad("not_an_image_volume")
def a_pet_by_its_sidecar(folder: Path) -> None:
    folder.mkdir()
    nib.save(nifti(), folder / "a.nii.gz")
    (folder / "a.json").write_text('{"Modality": "PT", "PatientName": "PLANTED"}')


@bad("empty_file")
def an_empty_nifti(folder: Path) -> None:
    folder.mkdir()
    (folder / "PLANTED.nii.gz").touch()


@bad("empty_file")
def an_empty_file_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "IM0001").touch()


# Other formats.


@bad("corrupt")
def meta_image(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.mha").write_text("ObjectType = Image\nNDims = 3\n")


@bad("corrupt")
def minc_2(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.mnc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))


@bad("corrupt")
def minc_1_of_rubbish(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.mnc").write_bytes(b"CDF\x01" + b"\x00\x00\x00\x05" * 100)


@bad("corrupt")
def text_under_the_name_of_nrrd(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.nrrd").write_text("PLANTED" * 100)


def _nrrd(case: str, reason: str, text: bytes, data: bytes = b"") -> None:
    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "a.nrrd").write_bytes(b"NRRD0004\n" + text + b"\n" + data)

    BAD[case] = (write, reason)


_SIZES = b"type: short\ndimension: 3\nsizes: 5 6 7\nendian: little\n"
_nrrd("nrrd_cut_off", "truncated", _SIZES + b"encoding: raw\n", bytes(100))
_nrrd("nrrd_with_data_elsewhere", "outside_root", _SIZES + b"encoding: raw\ndata file: ../../etc/passwd\n")
_nrrd("nrrd_in_text", "unsupported_format", _SIZES + b"encoding: ascii\n", b"1 2 3")
_nrrd("nrrd_of_blocks", "unsupported_dtype", _SIZES.replace(b"short", b"block") + b"encoding: raw\n", bytes(100))
_nrrd("nrrd_with_a_name_for_a_size", "corrupt", _SIZES.replace(b"5 6 7", b"5 6 PLANTED") + b"encoding: raw\n", bytes(100))
_nrrd("nrrd_beyond_the_limit", "too_large", _SIZES.replace(b"5 6 7", b"9000 9000 9000") + b"encoding: raw\n", bytes(100))
_nrrd("nrrd_with_sizes_missing", "corrupt", b"type: short\ndimension: 3\nencoding: raw\n", bytes(100))
_nrrd("nrrd_bomb", "too_large", _SIZES + b"encoding: gzip\n", gzip.compress(bytes(3 << 20)))


@bad("bad_affine")
def nrrd_with_a_flat_space(folder: Path) -> None:
    folder.mkdir()
    header = {"space": "left-posterior-superior", "space directions": np.diag([1.0, 1.0, 0.0]), "space origin": np.zeros(3)}
    nrrd.write(str(folder / "a.nrrd"), head(), header)


@bad("several_volumes")
def mgh_with_frames(folder: Path) -> None:
    folder.mkdir()
    nib.save(nib.MGHImage(np.stack([head()] * 2, -1).astype(np.float32), np.eye(4)), folder / "a.mgz")


@bad("unsupported_dtype")
def mgh_of_an_unknown_type(folder: Path) -> None:
    folder.mkdir()
    data = bytearray(nib.MGHImage(head().astype(np.float32), np.eye(4)).to_bytes())
    data[20:24] = struct.pack(">i", 2)
    (folder / "a.mgh").write_bytes(data)


@bad("truncated")
def mgh_cut_off(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.mgh").write_bytes(nib.MGHImage(head().astype(np.float32), np.eye(4)).to_bytes()[:-400])


# The file system.


@bad("not_a_regular_file")
def a_pipe(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "PLANTED.nii.gz")


@bad("outside_root")
def a_link_out_of_the_folder(folder: Path) -> None:
    folder.mkdir()
    nib.save(nifti(), folder.parent / "outside.nii.gz")
    (folder / "a.nii.gz").symlink_to(folder.parent / "outside.nii.gz")


@bad("outside_root")
def a_linked_folder_outside(folder: Path) -> None:
    folder.mkdir()
    Series().write(folder.parent / "outside")
    (folder / "series").symlink_to(folder.parent / "outside")


@bad("not_found")
def a_link_to_nothing(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.nii.gz").symlink_to(folder / "PLANTED")


@bad("no_readable_image")
def nothing_but_text(folder: Path) -> None:
    folder.mkdir()
    (folder / "PLANTED.csv").write_text("PLANTED")


@bad("no_readable_image")
def links_to_each_other(folder: Path) -> None:
    folder.mkdir()
    (folder / "self").symlink_to(folder)
    (folder / "a").mkdir()
    (folder / "a" / "up").symlink_to(folder)
    (folder / "a" / "b").symlink_to(folder / "a" / "b2")
    (folder / "a" / "b2").symlink_to(folder / "self" / "a")
