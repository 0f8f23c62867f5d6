"""Inputs that are odd but legal: each writes itself and says what must be read."""

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
from nibabel.externals.netcdf import netcdf_file
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from volumes.written import (
    CAPTURE_FRAMES_CLASS,
    Series,
    compress,
    head,
    nifti,
    nifti_bytes,
    save,
    transcode,
    without_preamble,
)
from wavespark.volumes import AssumedGeometry, ReadingSettings


@dataclass
class Expected:
    """One volume that must be read: values at places in RAS mm, whatever the order of axes."""

    values: np.ndarray
    affine: np.ndarray
    notes: frozenset = frozenset()
    modality: str = "CT"
    invalid: np.ndarray | None = None


@dataclass
class Case:
    """A good input."""

    write: Callable[[Path], Expected | list[Expected]]
    settings: ReadingSettings


GOOD: dict[str, Case] = {}
GUESSED = "modality_guessed"


def good(**settings: object) -> Callable:
    """Registers a case under its function's name."""

    def register(write: Callable) -> Callable:
        GOOD[write.__name__] = Case(write, ReadingSettings(**settings))
        return write

    return register


def expect(series: Series, *notes: str, values: np.ndarray | None = None, **more: object) -> Expected:
    """What a series must give."""
    values = series.values if values is None else values
    return Expected(values, series.affine, frozenset(notes), modality=series.modality, **more)


def _plain(case: str, /, *notes: str, **fields: object) -> None:
    @good()
    def write(folder: Path) -> Expected:
        return expect(Series(**fields).write(folder), *notes)

    GOOD[case] = GOOD.pop("write")


_plain("explicit_little_endian")
_plain("implicit_little_endian", syntax=ImplicitVRLittleEndian)
_plain("big_endian", syntax=ExplicitVRBigEndian)
_plain("deflated", syntax=DeflatedExplicitVRLittleEndian)
_plain("rle", syntax=RLELossless, change=compress(RLELossless))
_plain("jpeg_ls", syntax=JPEGLSLossless, change=compress(JPEGLSLossless), signed=False)
_plain("unsigned_16_bit", signed=False, stored=head().astype(np.uint16) + 40000, intercept=-41024.0)
_plain("eight_bit_mr", "few_distinct_values", modality="MR", bits=8, stored_bits=8, signed=False, intercept=0.0,
       stored=(head() > 500).astype(np.uint8) * 100 + np.arange(7, dtype=np.uint8)[:, None, None])  # fmt: skip
_plain("big_endian_eight_bit_mr_of_odd_size", modality="MR", bits=8, stored_bits=8, signed=False, intercept=0.0,
       syntax=ExplicitVRBigEndian, stored=np.random.default_rng(1).integers(0, 256, (5, 9, 11)))  # fmt: skip
_plain("mr_with_fractional_slope", modality="MR", slope=0.0123, intercept=3.5)
_plain("sagittal", row=(0.0, 1.0, 0.0), column=(0.0, 0.0, -1.0), step=(3.0, 0.0, 0.0))
_plain("coronal", row=(1.0, 0.0, 0.0), column=(0.0, 0.0, -1.0), step=(0.0, 3.0, 0.0))
_plain("double_oblique", row=(0.8, 0.6, 0.0), column=(-0.48, 0.64, 0.6), step=(1.08, -1.44, 2.4))
_plain("gantry_tilt", "gantry_tilt", step=(0.0, -1.2, 4.0))
_plain("many_slices_of_tenths", stored=head(40), step=(0.0, 0.0, 0.3))
_plain("names_with_newlines_and_invalid_utf8", name=lambda k: b"PLANTED\n\xff%d" % k)
_plain("dicom_under_the_name_of_a_picture", "wrong_extension", name="{}.jpg".format)
_plain("no_extension", name=lambda k: f"IM{k}")
_plain("no_preamble_implicit", "no_preamble", syntax=ImplicitVRLittleEndian, raw=without_preamble)
_plain("no_preamble_explicit", "no_preamble", raw=without_preamble)


@good()
def jpeg_lossless(folder: Path) -> Expected:
    series = Series(signed=False).write(folder)
    transcode(folder, JPEGLosslessSV1)
    return expect(series)


@good()
def jpeg_2000(folder: Path) -> Expected:
    series = Series(stored=head(7, 40, 36)).write(folder)
    transcode(folder, JPEG2000Lossless)
    return expect(series)


@good()
def twelve_bits_with_an_overlay_above(folder: Path) -> Expected:
    series = Series(stored=(head() - 1024).astype(np.int16), stored_bits=12, intercept=0.0)
    clean = series.stored.copy()
    series.stored = (clean & 0x0FFF) | (np.arange(11, dtype=np.int16) % 8 << 12)
    series.write(folder)
    return expect(series, values=clean.T.astype(np.float32))


@good()
def a_slope_of_its_own_for_each_slice(folder: Path) -> Expected:
    series = Series(modality="MR", intercept=0.0)
    slopes = np.linspace(0.5, 2.0, 7).round(3)
    series.change = lambda dataset, k: setattr(dataset, "RescaleSlope", str(slopes[k]))
    series.write(folder)
    return expect(series, values=(series.stored.T * slopes).astype(np.float32))


def _padded(series: Series, value: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners padded: values that must come out, and where they are invalid."""
    outside = np.zeros(series.stored.shape, bool)
    outside[:, :2, :2] = True
    values = series.values.copy()
    values[outside.T] = values[~outside.T].min()
    series.stored = np.where(outside, value, series.stored).astype(series.stored.dtype)
    return values, outside.T


@good()
def signed_padding(folder: Path) -> Expected:
    series = Series(change=lambda dataset, k: dataset.add_new("PixelPaddingValue", "SS", -2000))
    values, invalid = _padded(series, -2000)
    series.write(folder)
    return expect(series, values=values, invalid=invalid)


@good()
def padding_with_the_wrong_sign(folder: Path) -> Expected:
    series = Series(change=lambda dataset, k: dataset.add_new("PixelPaddingValue", "US", 63536))
    values, invalid = _padded(series, -2000)
    series.write(folder)
    return expect(series, values=values, invalid=invalid)


@good()
def unsigned_padding(folder: Path) -> Expected:
    series = Series(signed=False, change=lambda dataset, k: dataset.add_new("PixelPaddingValue", "US", 65535))
    series.stored = series.stored.astype(np.uint16)
    values, invalid = _padded(series, 65535)
    series.write(folder)
    return expect(series, values=values, invalid=invalid)


@good()
def a_range_of_padding(folder: Path) -> Expected:
    def change(dataset: object, k: int) -> None:
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        dataset.add_new("PixelPaddingRangeLimit", "SS", -1990)

    series = Series(change=change)
    values, invalid = _padded(series, -2000)
    series.stored[:, 0, 0] = -1993
    series.write(folder)
    return expect(series, values=values, invalid=invalid)


@good()
def names_and_instance_numbers_in_another_order(folder: Path) -> Expected:
    order = [3, 6, 0, 5, 1, 4, 2]
    series = Series(name=lambda k: f"{order[k]}.dcm")
    series.change = lambda dataset, k: setattr(dataset, "InstanceNumber", str(9 - order[k]))
    return expect(series.write(folder))


@good()
def slices_from_the_head_down(folder: Path) -> Expected:
    return expect(Series(step=(0.0, 0.0, -2.5)).write(folder))


@good()
def positions_rounded_to_tenths(folder: Path) -> Expected:
    series = Series(step=(0.0, 0.0, 6.94))
    series.change = lambda dataset, k: setattr(dataset, "ImagePositionPatient", [str(round(v, 1)) for v in series.position(k)])
    series.write(folder)
    series.step = (0.0, 0.0, round(series.position(6)[2], 1) / 6 - 5)
    return expect(series)


@good()
def two_series_in_one_folder(folder: Path) -> list[Expected]:
    first = Series().write(folder)
    second = Series(stored=head(5, seed=3), modality="MR", uid="1.2.3.4", name="b{}".format, intercept=0.0).write(folder)
    return [expect(first), expect(second)]


@good()
def one_series_over_two_folders(folder: Path) -> Expected:
    Series(skip=(0, 2, 4, 6)).write(folder / "a")
    return expect(Series(skip=(1, 3, 5)).write(folder / "b"))


def _times(keyword: str, values: tuple, note: str) -> Callable[[Path], list[Expected]]:
    def write(folder: Path) -> list[Expected]:
        made = []
        for n, value in enumerate(values):
            series = Series(stored=head(seed=n), name=lambda k, n=n: f"{3 * k % 7}-{n}.dcm", modality="MR", intercept=0)

            def change(dataset: object, k: int, n: int = n, value: object = value) -> None:
                dataset.SOPInstanceUID += f".{n + 1}"
                setattr(dataset, keyword, value)

            series.change = change
            made.append(expect(series.write(folder), note))
        return made

    return write


for _keyword, _values, _note in (
    ("TemporalPositionIdentifier", ("1", "2", "10"), "time_point"),
    ("AcquisitionNumber", ("4", "5"), "time_point"),
    ("AcquisitionTime", ("101112.25", "101320"), "time_point"),
    ("AcquisitionTime", ("101112.25", "121320"), "split_series"),
    ("EchoTime", ("9.5", "80.25"), "split_series"),
    ("InversionTime", ("400", "2500"), "split_series"),
    ("FlipAngle", ("5", "26"), "split_series"),
    ("FrameOfReferenceUID", ("1.2.3.1", "1.2.3.2"), "split_series"),
    ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "M", "NORM"]), "split_series"),
):
    GOOD[f"{_note}_told_by_{_keyword}"] = Case(_times(_keyword, _values, _note), ReadingSettings())


@good()
def a_scout_inside(folder: Path) -> Expected:
    scout = Series(stored=head(1, 30, 30), row=(0.0, 1.0, 0.0), column=(0.0, 0.0, -1.0), name="scout{}".format)
    scout.change = lambda dataset, k: setattr(dataset, "SOPInstanceUID", "1.9.9")
    scout.write(folder)
    return expect(Series().write(folder), "dropped_minority_geometry")


@good()
def files_copied_twice(folder: Path) -> Expected:
    Series(name="copy{}.dcm".format, skip=(0, 1)).write(folder)
    return expect(Series().write(folder), "duplicate_files")


@good()
def one_slice_sent_twice_under_two_names(folder: Path) -> Expected:
    Series(name="b{}".format, skip=(0, 1, 2, 4, 5, 6), change=_with(SOPInstanceUID="1.7.7")).write(folder)
    return expect(Series().write(folder), "duplicate_files")


@good()
def every_slice_sent_twice_under_two_names(folder: Path) -> Expected:
    Series(name="b{}".format, change=lambda d, k: setattr(d, "SOPInstanceUID", f"1.7.{k}")).write(folder)
    return expect(Series().write(folder), "duplicate_files")


def _with(**values: object) -> Callable[[object, int], None]:
    """A change of some values, None to delete one."""

    def change(dataset: object, k: int) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return change


@good()
def a_group_length_before_the_pixels(folder: Path) -> Expected:
    def raw(data: bytes, k: int) -> bytes:
        at = data.rindex(b"\xe0\x7f\x10\x00OW")
        return data[:at] + b"\xe0\x7f\x00\x00UL\x04\x00" + (len(data) - at).to_bytes(4, "little") + data[at:]

    return expect(Series(raw=raw).write(folder))


@good()
def group_lengths_in_an_implicit_data_set(folder: Path) -> Expected:
    def raw(data: bytes, k: int) -> bytes:
        at = data.rindex(b"\xe0\x7f\x10\x00")
        data = data[:at] + b"\xe0\x7f\x00\x00\x04\x00\x00\x00" + (len(data) - at).to_bytes(4, "little") + data[at:]
        start = data.index(b"\x08\x00\x16\x00")
        return data[:start] + b"\x08\x00\x00\x00\x04\x00\x00\x00\x10\x00\x00\x00" + data[start:]

    return expect(Series(syntax=ImplicitVRLittleEndian, raw=raw).write(folder))


@good()
def an_extended_offset_table_before_the_pixels(folder: Path) -> Expected:
    def change(dataset: object, k: int) -> None:
        compress(RLELossless)(dataset, k)
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = bytes(8), (400).to_bytes(8, "little")

    return expect(Series(syntax=RLELossless, change=change).write(folder))


@good()
def a_private_object_without_pixels_in_the_series(folder: Path) -> Expected:
    private = Series(sop_class="1.3.46.670589.11.0.0.12.2", stored=head(1), modality="MR").dataset(0)
    series = Series(modality="MR", intercept=0.0).write(folder)
    private.SOPInstanceUID = "1.8.8"
    del private["PixelData"]
    save(private, folder / "XX_0001")
    return expect(series, "not_an_image_volume")


@good()
def a_dicomdir_with_nothing_but_records(folder: Path) -> Expected:
    series = Series().write(folder)
    directory = Dataset()
    directory.FileSetID, directory.FileSetConsistencyFlag = "PLANTED", 0
    directory.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    directory.DirectoryRecordSequence = []
    save(directory, folder / "DIRFILE")
    return expect(series)


def _renamed_syntax(case: str, written: str, declared: str, **fields: object) -> None:
    """A series whose meta header names another transfer syntax than it is written in."""

    def write(folder: Path) -> Expected:
        by_gdcm = written in (JPEG2000Lossless, JPEGLosslessSV1)
        series = Series(syntax=ExplicitVRLittleEndian if by_gdcm else written, **fields).write(folder)
        if by_gdcm:
            transcode(folder, written)
        for path in folder.iterdir():
            data = path.read_bytes()
            body = data[144 + int.from_bytes(data[140:144], "little") :]
            uid = declared.encode() + b"\x00" * (len(declared) % 2)
            meta = b"\x02\x00\x10\x00UI" + len(uid).to_bytes(2, "little") + uid
            path.write_bytes(data[:140] + len(meta).to_bytes(4, "little") + meta + body)
        return expect(series)

    GOOD[case] = Case(write, ReadingSettings())


_renamed_syntax("explicit_called_implicit", ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_renamed_syntax("implicit_called_explicit", ImplicitVRLittleEndian, ExplicitVRLittleEndian)
_renamed_syntax("big_endian_called_little", ExplicitVRBigEndian, ExplicitVRLittleEndian)
_renamed_syntax("plain_called_deflated", ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
_renamed_syntax("plain_called_jpeg_2000", ExplicitVRLittleEndian, JPEG2000Lossless)
_renamed_syntax("rle_called_plain", RLELossless, ExplicitVRLittleEndian, change=compress(RLELossless))
_renamed_syntax("rle_called_jpeg", RLELossless, JPEGLosslessSV1, change=compress(RLELossless))
_renamed_syntax("jpeg_2000_called_jpeg", JPEG2000Lossless, JPEGLosslessSV1, stored=head(7, 40, 36))
_renamed_syntax("jpeg_2000_called_plain", JPEG2000Lossless, ExplicitVRLittleEndian, stored=head(7, 40, 36))
_renamed_syntax("jpeg_lossless_called_baseline", JPEGLosslessSV1, "1.2.840.10008.1.2.4.50", signed=False)
_renamed_syntax("jpeg_ls_called_jpeg_2000", JPEGLSLossless, JPEG2000Lossless, change=compress(JPEGLSLossless), signed=False)


def _padded_frames(case: str, syntax: str, pad: bytes, empty: bool = False, **fields: object) -> None:
    """Compressed frames with bytes behind their end mark, or with an empty fragment behind them."""

    def write(folder: Path) -> Expected:
        series = Series(**fields).write(folder)
        transcode(folder, syntax)
        for path in folder.iterdir():
            dataset = dcmread(path)
            frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
            dataset.PixelData = encapsulate([frame + pad])
            if empty:
                dataset.PixelData += b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
            dataset.save_as(path)
        return expect(series)

    GOOD[case] = Case(write, ReadingSettings())


_padded_frames("bytes_after_the_end_of_jpeg_2000", JPEG2000Lossless, bytes(200), stored=head(7, 40, 36))
_padded_frames("noise_after_the_end_of_jpeg_2000", JPEG2000Lossless, b"\x12\x34" * 99, stored=head(7, 40, 36))
_padded_frames("bytes_after_the_end_of_jpeg_ls", JPEGLSLossless, bytes(200), signed=False)
_padded_frames("an_empty_fragment_after_the_frame", JPEGLosslessSV1, b"", empty=True, signed=False)


@good()
def frames_in_several_fragments_and_an_empty_offset_table(folder: Path) -> Expected:
    series = Series(stored=head(7, 40, 36))
    series.write(folder / "one")
    transcode(folder / "one", JPEG2000Lossless)
    frames = [next(generate_frames(dcmread(p).PixelData, number_of_frames=1)) for p in sorted((folder / "one").iterdir())]
    shutil.rmtree(folder / "one")
    dataset = series.enhanced()
    dataset.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=False)
    dataset["PixelData"].is_undefined_length = True
    save(dataset, folder / "multi.dcm", JPEG2000Lossless)
    return expect(series)


@good()
def geometry_stated_by_positions_alone(folder: Path) -> Expected:
    change = _with(SliceThickness="1", SpacingBetweenSlices=None)
    return expect(Series(change=change).write(folder))


@good(allow_gaps=True)
def one_damaged_file_where_gaps_are_allowed(folder: Path) -> Expected:
    series = Series(stored=head(9), raw=lambda data, k: data[:-60] if k == 4 else data).write(folder)
    values = series.values.copy()
    values[:, :, 4] = (values[:, :, 3] + values[:, :, 5]) / 2
    invalid = np.zeros(values.shape, bool)
    invalid[:, :, 4] = True
    return expect(series, "allow_gaps", "damaged_files_left_out", values=values, invalid=invalid)


@good()
def all_kinds_of_things_beside(folder: Path) -> Expected:
    series = Series().write(folder)
    (folder / "README.txt").write_text("PLANTED")
    (folder / "IM_EMPTY").touch()
    os.mkfifo(folder / "pipe")
    report = Series(sop_class="1.2.840.10008.5.1.4.1.1.104.1", stored=head(1), uid="1.5", name="report".format).dataset(0)
    del report["PixelData"], report["Rows"]
    save(report, folder / "report.dcm")
    directory = Series(sop_class="1.2.840.10008.1.3.10").dataset(0)
    save(directory, folder / "DICOMDIR")
    capture = Series(stored=head(1), uid="1.6").dataset(0)
    capture.SamplesPerPixel, capture.PhotometricInterpretation, capture.PlanarConfiguration = 3, "RGB", 0
    capture.PixelData = capture.PixelData * 3
    save(capture, folder / "capture.dcm")
    return expect(series, "not_dicom", "empty_file", "not_a_regular_file", "not_an_image_volume")


@good()
def monochrome1_is_not_inverted(folder: Path) -> Expected:
    series = Series(change=lambda dataset, k: setattr(dataset, "PhotometricInterpretation", "MONOCHROME1"))
    return expect(series.write(folder), "monochrome1")


@good()
def ct_without_air(folder: Path) -> Expected:
    return expect(Series(intercept=0.0).write(folder), "suspicious_hu")


@good()
def enhanced_with_shuffled_frames_and_slopes(folder: Path) -> Expected:
    series = Series(modality="MR", intercept=0.0)
    slopes = np.linspace(0.5, 2.0, 7).round(3)
    folder.mkdir()
    save(series.enhanced([4, 2, 6, 0, 1, 5, 3], list(slopes)), folder / "multi.dcm")
    return expect(series, values=(series.stored.T * slopes).astype(np.float32))


@good()
def enhanced_compressed(folder: Path) -> Expected:
    series = Series(modality="CT")
    dataset = series.enhanced([1, 0, 2, 4, 3, 6, 5])
    compress(RLELossless)(dataset, 0)
    folder.mkdir()
    save(dataset, folder / "multi.dcm", RLELossless)
    return expect(series)


@good()
def enhanced_with_everything_else_at_the_top(folder: Path) -> Expected:
    series = Series()
    dataset = series.enhanced()
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame["PixelValueTransformationSequence"]
    del dataset.SharedFunctionalGroupsSequence[0]["PlaneOrientationSequence"]
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    folder.mkdir()
    save(dataset, folder / "multi.dcm")
    return expect(series)


@good()
def enhanced_with_two_time_points(folder: Path) -> list[Expected]:
    series = Series(modality="MR", intercept=0.0)
    late = Series(modality="MR", intercept=0.0, stored=head(seed=5))
    both = Series(modality="MR", intercept=0.0, stored=np.concatenate([series.stored, late.stored]))
    dataset = both.enhanced()
    for n, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = list(map(str, series.position(n % 7)))
        frame.FrameContentSequence = series_item(TemporalPositionIndex=1 + n // 7)
    folder.mkdir()
    save(dataset, folder / "multi.dcm")
    return [expect(series, "time_point"), expect(late, "time_point")]


def series_item(**values: object) -> object:
    """A sequence of one item."""
    from volumes.written import one

    return one(**values)


@good()
def enhanced_in_two_files(folder: Path) -> Expected:
    series = Series()
    folder.mkdir()
    for n, frames in enumerate(([0, 2, 4], [5, 3, 1, 6])):
        dataset = series.enhanced(frames)
        dataset.SOPInstanceUID = f"1.2.3.{n}"
        save(dataset, folder / f"{n}.dcm")
    return expect(series)


@good(assume_geometry=AssumedGeometry(spacing=(0.5, 0.7, 2.5), axes="LPS"))
def frames_without_any_geometry(folder: Path) -> Expected:
    series = Series(origin=(0.0, 0.0, 0.0), sop_class=CAPTURE_FRAMES_CLASS)
    dataset = series.enhanced()
    dataset.SOPClassUID = CAPTURE_FRAMES_CLASS
    del dataset["PerFrameFunctionalGroupsSequence"], dataset["SharedFunctionalGroupsSequence"]
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    folder.mkdir()
    save(dataset, folder / "multi.dcm")
    return expect(series, "assumed_geometry")


@good(allow_gaps=True)
def a_missing_slice_where_that_is_allowed(folder: Path) -> Expected:
    series = Series(stored=head(9), skip=(4,)).write(folder)
    values = series.values.copy()
    values[:, :, 4] = (values[:, :, 3] + values[:, :, 5]) / 2
    invalid = np.zeros(values.shape, bool)
    invalid[:, :, 4] = True
    return expect(series, "allow_gaps", values=values, invalid=invalid)


@good(hu_already_applied=True)
def hu_already_applied_and_an_intercept(folder: Path) -> Expected:
    series = Series(stored=(head() - 1024).astype(np.int16)).write(folder)
    return expect(series, "hu_already_applied", values=series.stored.T.astype(np.float32))


@good(hu_already_applied=True)
def hu_not_yet_applied_where_it_might_be(folder: Path) -> Expected:
    return expect(Series().write(folder))


OBLIQUE = np.array([[0.4, -0.42, 0, -20], [0.3, 0.56, 0, -30], [0, 0, 2.5, -40], [0, 0, 0, 1]])


def _nifti(case: str, /, *notes: str, file: str = "scan.nii.gz", modality: str = "MR", **fields: object) -> None:
    @good()
    def write(folder: Path) -> Expected:
        array = np.asfortranarray(fields.get("array", head().T))
        image = fields.get("image", nifti)(array, OBLIQUE)
        folder.mkdir()
        nib.save(image, folder / file)
        data = (folder / file).read_bytes()
        loaded = type(image).from_bytes(gzip.decompress(data) if file.endswith(("gz", "mgz")) else data)
        values = loaded.get_fdata().astype(np.float32).reshape(array.shape[:3])
        return Expected(values, loaded.affine, frozenset(notes), modality=modality)

    GOOD[case] = GOOD.pop("write")


def _with_scaling(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, affine)
    image.header.set_slope_inter(0.25, -7)
    return image


def _by_quaternion(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, None)
    image.set_qform(affine, code=1)
    return image


_nifti("nifti", GUESSED)
_nifti("nifti_plain", GUESSED, file="scan.nii")
_nifti("nifti_2", GUESSED, image=nib.Nifti2Image)
_nifti("nifti_of_doubles", GUESSED, array=head().T.astype(np.float64) / 3)
_nifti("nifti_big_endian", GUESSED, array=head().T.astype(">i2"))
_nifti("nifti_of_bytes_with_scaling", GUESSED, "few_distinct_values", array=(head().T // 8).astype(np.uint8), image=_with_scaling)
_nifti("nifti_with_trailing_ones", GUESSED, array=head().T[..., None, None])
_nifti("nifti_ct_by_its_values", array=head().T - 1024, modality="CT")
_nifti("nifti_ct_by_its_name", "suspicious_hu", file="sub-01_ct.nii.gz", modality="CT")
_nifti("nifti_with_qform_only", GUESSED, image=_by_quaternion)
_nifti("nifti_without_orientation", GUESSED, "no_orientation", image=lambda array, affine: nib.Nifti1Image(array, None))
_nifti("label_map", GUESSED, "few_distinct_values", array=(head().T > 500).astype(np.uint8))
_nifti("nifti_of_64_bits", GUESSED, array=head().T.astype(np.int64), image=lambda a, m: nib.Nifti1Image(a, m, dtype=np.int64))
_nifti("mgz", GUESSED, file="brain.mgz", array=head().T.astype(np.float32), image=nib.MGHImage)
_nifti("mgh", GUESSED, file="brain.mgh", image=nib.MGHImage)


@good()
def nifti_with_a_slope_that_is_not_a_number(folder: Path) -> Expected:
    folder.mkdir()
    (folder / "a.nii").write_bytes(nifti_bytes(slope=(112, "<f", np.nan)))
    return Expected(head().T.astype(np.float32), np.diag([0.5, 0.7, 2.5, 1]), frozenset({GUESSED}), "MR")


@good()
def nifti_plain_under_the_name_of_gzip(folder: Path) -> Expected:
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes(nifti_bytes())
    return Expected(head().T.astype(np.float32), np.diag([0.5, 0.7, 2.5, 1]), frozenset({"wrong_extension", GUESSED}), "MR")


@good()
def nifti_gzipped_in_two_members(folder: Path) -> Expected:
    folder.mkdir()
    data = bytes(nifti_bytes())
    (folder / "a.nii.gz").write_bytes(gzip.compress(data[:700]) + gzip.compress(data[700:]) + b"\x00" * 100)
    return Expected(head().T.astype(np.float32), np.diag([0.5, 0.7, 2.5, 1]), frozenset({GUESSED}), "MR")


@good()
def nifti_with_a_header_extension(folder: Path) -> Expected:
    folder.mkdir()
    image = nifti(affine=OBLIQUE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"PLANTED" * 50))
    nib.save(image, folder / "a.nii.gz")
    return Expected(head().T.astype(np.float32), OBLIQUE, frozenset({GUESSED}), "MR")


def _nrrd(encoding: str, space: str, signs: tuple) -> Iterator[None]:
    @good()
    def write(folder: Path) -> Expected:
        folder.mkdir()
        affine = np.diag([*signs, 1.0]) @ OBLIQUE
        header = {"space": space, "space directions": affine[:3, :3].T, "space origin": affine[:3, 3], "encoding": encoding}
        nrrd.write(str(folder / "a.nrrd"), head().T.copy(), header)
        return Expected(head().T.astype(np.float32), OBLIQUE, frozenset({GUESSED}), "MR")

    GOOD[f"nrrd_{encoding}_{space}"] = GOOD.pop("write")


_nrrd("raw", "left-posterior-superior", (-1, -1, 1))
_nrrd("gzip", "right-anterior-superior", (1, 1, 1))
_nrrd("bzip2", "left-anterior-superior", (-1, 1, 1))


@good()
def nrrd_without_space(folder: Path) -> Expected:
    folder.mkdir()
    nrrd.write(str(folder / "a.nrrd"), head().T.copy(), {"spacings": [0.5, 0.7, 2.5]})
    return Expected(head().T.astype(np.float32), np.diag([0.5, 0.7, 2.5, 1]), frozenset({"no_orientation", GUESSED}), "MR")


@good()
def minc_1(folder: Path) -> Expected:
    folder.mkdir()
    stored = head()
    with netcdf_file(str(folder / "a.mnc"), "w") as file:
        for name, size, step in zip(("zspace", "yspace", "xspace"), stored.shape, (2.5, 0.7, 0.5), strict=True):
            file.createDimension(name, size)
            axis = file.createVariable(name, "i", ())
            axis.step, axis.start, axis.spacing = step, -10.0, b"regular__"
        image = file.createVariable("image", "h", ("zspace", "yspace", "xspace"))
        image[:] = stored
        image.valid_range = np.array([0.0, 4095.0])
        image.signtype = b"signed__"
        for name, value in (("image-min", 0.0), ("image-max", 4095.0)):
            limit = file.createVariable(name, "d", ("zspace",))
            limit[:] = np.full(len(stored), value)
    affine = np.diag([0.5, 0.7, 2.5, 1])
    affine[:3, 3] = -10
    return Expected(stored.T.astype(np.float32), affine, frozenset({GUESSED}), "MR")
