"""Slices of two patients, studies, echoes or reconstructions never meet in one volume, whatever UID they share."""

import nibabel as nib
import numpy as np
import pytest

from volumes.good import Expected
from volumes.test_good import differs
from volumes.written import Series, head, save
from wavespark.volumes import ReadingSettings, find_sources, patient_id, read_source, read_volumes, source_id

HALF_A_STEP = (-40.0, -60.0, 31.25)


def with_values(instance: str | None = None, **values):
    """A change that gives other instances and the given values, None for no such element."""

    def change(dataset, k):
        if instance is not None:
            dataset.SOPInstanceUID = f"1.9.{instance}.{k + 1}"
        for keyword, value in values.items():
            if value is None:
                if keyword in dataset:
                    delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return change


def assert_apart(folder, *series, **settings):
    """Each series is a volume of its own with the right values and place; gives the volumes in the order of the series."""
    found = read_volumes(folder, secret=b"key", settings=ReadingSettings(**settings))
    assert not found.refused, found.refused
    assert len(found.volumes) == len(series)
    ordered = []
    for one in series:
        fits = [v for v in found.volumes if not differs(v, Expected(one.values, one.affine))]
        assert len(fits) == 1
        ordered += fits
    assert len({v.id for v in ordered}) == len(series)
    return ordered


@pytest.mark.parametrize("origin", [HALF_A_STEP, Series().origin, (-40.0, -60.0, 47.5)])
@pytest.mark.parametrize("folders", [("a", "b"), ("a", "a")])
@pytest.mark.parametrize(
    "tells",
    [
        {"PatientID": "OTHER"},
        {"PatientName": "OTHER^NAME"},
        {"PatientBirthDate": "19300102"},
        {"PatientID": "OTHER", "AcquisitionTime": "110000"},
    ],
)
def test_two_patients_with_one_series_uid_are_two_volumes_of_two_patients(tells, folders, origin, tmp_path):
    one = Series(change=with_values("1", PatientBirthDate="19500203", AcquisitionTime="090000"), name="a{}".format).write(tmp_path / folders[0])
    other = Series(
        stored=head(seed=4), origin=origin, name="b{}".format,
        change=with_values("2", **({"PatientBirthDate": "19500203", "AcquisitionTime": "090000"} | tells)),
    ).write(tmp_path / folders[1])  # fmt: skip
    volumes = assert_apart(tmp_path, one, other)
    assert volumes[0].patient != volumes[1].patient


@pytest.mark.parametrize("origin", [HALF_A_STEP, Series().origin])
@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "StudyDate", "AccessionNumber", "DeviceSerialNumber", "FrameOfReferenceUID", "AcquisitionDate", "SeriesNumber"]
)
def test_what_is_constant_in_a_series_tells_two_series_with_one_uid_apart(keyword, origin, tmp_path):
    values = ("1.2.3", "1.2.4") if keyword.endswith("UID") else ("20010101", "20020202")
    one = Series(change=with_values("1", **{keyword: values[0]})).write(tmp_path / "a")
    other = Series(change=with_values("2", **{keyword: values[1]}), stored=head(seed=4), origin=origin).write(tmp_path / "b")
    assert_apart(tmp_path, one, other)


def test_two_sessions_hours_apart_are_told_by_their_times_alone(tmp_path):
    one = Series(change=with_values("1", AcquisitionTime="090000.5"), name="a{}".format).write(tmp_path)
    other = Series(change=with_values("2", AcquisitionTime="110001"), stored=head(seed=4), origin=HALF_A_STEP).write(tmp_path)
    assert_apart(tmp_path, one, other)


@pytest.mark.parametrize("dates", [("19991231", "20000101"), (None, None)])
def test_a_scan_that_runs_past_midnight_is_one_volume(dates, tmp_path):
    def change(dataset, k):
        dataset.AcquisitionTime = f"2358{10 + k}" if k < 4 else f"0003{10 + k}"
        if dates[0]:
            dataset.AcquisitionDate = dates[k >= 4]

    assert_apart(tmp_path, Series(change=change).write(tmp_path))


def test_a_measured_quantity_that_jitters_leaves_one_volume(tmp_path):
    times = ["9.98", "10.0", "10.02"]
    assert_apart(tmp_path, Series(change=lambda d, k: setattr(d, "EchoTime", times[k % 3])).write(tmp_path))


def test_patients_without_any_identifier_are_told_by_folders_that_number_their_slices_alike(tmp_path):
    """An anonymiser that writes constants everywhere: only the folders and the instance numbers are left."""
    one = Series(change=with_values("1", PatientID=None, PatientName=None)).write(tmp_path / "a")
    other = Series(change=with_values("2", PatientID=None, PatientName=None), stored=head(seed=4), origin=HALF_A_STEP).write(tmp_path / "b")
    volumes = assert_apart(tmp_path, one, other)
    assert volumes[0].patient != volumes[1].patient


def test_an_equal_instance_uid_of_another_patient_is_no_copy(tmp_path):
    one = Series().write(tmp_path / "a")
    other = Series(stored=head(seed=4), change=with_values(PatientID="OTHER")).write(tmp_path / "b")
    assert not any("duplicate_files" in v.notes for v in assert_apart(tmp_path, one, other))


def test_a_name_written_in_two_ways_or_left_out_is_one_patient(tmp_path):
    names = ["PLANTED^NAME", "planted^name^^^", "Planted^Name ", "", "PLANTED^NAME", "", "PLANTED^NAME"]
    series = Series(change=lambda d, k: setattr(d, "PatientName", names[k])).write(tmp_path)
    assert_apart(tmp_path, series)


def test_a_study_uid_that_is_another_one_in_each_file_tells_nothing(tmp_path):
    series = Series(change=lambda d, k: setattr(d, "StudyInstanceUID", f"1.2.{k + 1}")).write(tmp_path)
    assert_apart(tmp_path, series)


@pytest.mark.parametrize("origin", [HALF_A_STEP, Series().origin])
@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("EchoTime", ("15", "90")), ("EchoNumbers", ("1", "2")), ("ConvolutionKernel", ("H30s", "H70h")), ("InversionTime", ("400", "2500")),
        ("FlipAngle", ("5", "26")), ("DiffusionBValue", (0.0, 1000.0)), ("KVP", ("80", "140")), ("ScanningSequence", ("SE", "GR")),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])), ("ContrastBolusAgent", ("", "GD")),
        ("SeriesDescription", ("first", "second")),
    ],
)  # fmt: skip
def test_echoes_kernels_and_other_acquisitions_of_one_series_are_volumes_of_their_own(keyword, values, origin, tmp_path):
    modality = "CT" if keyword in ("ConvolutionKernel", "KVP") else "MR"
    more = {"modality": modality, "intercept": -1024.0 if modality == "CT" else 0.0}
    one = Series(change=with_values("1", **{keyword: values[0]}), name="a{}".format, **more).write(tmp_path)
    other = Series(change=with_values("2", **{keyword: values[1]}), stored=head(seed=4), origin=origin, **more).write(tmp_path)
    volumes = assert_apart(tmp_path, one, other)
    assert all("split_series" in v.notes for v in volumes)
    assert volumes[0].patient == volumes[1].patient


def test_acquisition_numbers_that_alternate_along_the_normal_are_two_acquisitions(tmp_path):
    one = Series(change=with_values("1", AcquisitionNumber="1"), name="a{}".format).write(tmp_path)
    other = Series(change=with_values("2", AcquisitionNumber="2"), stored=head(seed=4), origin=HALF_A_STEP).write(tmp_path)
    assert_apart(tmp_path, one, other)


@pytest.mark.parametrize("number", [lambda k: k + 1, lambda k: 1 + k // 4, lambda k: 7])
def test_acquisition_numbers_of_a_sequential_scan_leave_it_one_volume(number, tmp_path):
    assert_apart(tmp_path, Series(stored=head(12), change=lambda d, k: setattr(d, "AcquisitionNumber", str(number(k)))).write(tmp_path))


def test_an_echo_that_lacks_a_slice_is_dropped_and_the_whole_one_kept(tmp_path):
    one = Series(change=with_values("1", EchoTime="15"), name="a{}".format, modality="MR", intercept=0.0).write(tmp_path)
    Series(change=with_values("2", EchoTime="90"), stored=head(seed=4), skip=(3,), modality="MR").write(tmp_path)
    (volume,) = assert_apart(tmp_path, one)
    assert volume.notes == ("dropped_acquisition",)


def test_time_points_of_an_enhanced_object_come_in_the_order_of_their_numbers(tmp_path):
    stored = [head(4, seed=n) for n in range(12)]
    series = Series(stored=np.concatenate(stored), modality="MR", intercept=0.0)
    dataset = series.enhanced()
    for n, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        from volumes.written import one

        frame.PlanePositionSequence[0].ImagePositionPatient = list(map(str, series.position(n % 4)))
        frame.FrameContentSequence = one(TemporalPositionIndex=n // 4 + 1)
    save(dataset, tmp_path / "multi.dcm")
    volumes = read_volumes(tmp_path).volumes
    assert [float(v.voxels.sum()) for v in volumes] == [float(s.sum()) for s in stored]
    assert all({"time_point", "time_series"} <= set(v.notes) for v in volumes)


def test_the_id_of_a_series_is_of_its_uid_and_that_of_a_split_one_of_more(tmp_path):
    Series().write(tmp_path / "a")
    (sources, _) = find_sources(tmp_path, b"key")
    assert [s.id for s in sources] == [source_id(b"key", Series().uid)]
    Series(change=with_values("2", PatientID="OTHER")).write(tmp_path / "b")
    (sources, _) = find_sources(tmp_path, b"key")
    assert len({s.id for s in sources} - {source_id(b"key", Series().uid)}) == 2
    assert {s.patient for s in sources} == {patient_id(b"key", "PLANTED-ID-4711"), patient_id(b"key", "OTHER")}


def test_volumes_of_one_study_share_a_session(tmp_path):
    for name, study in (("a", "1.2.3"), ("b", "1.2.3"), ("c", "1.2.4")):
        Series(uid=f"1.5.{ord(name)}", change=with_values(StudyInstanceUID=study)).write(tmp_path / name)
    a, b, c = (volume.session for volume in read_volumes(tmp_path).volumes)
    assert a == b != c
    assert a is not None


@pytest.mark.parametrize("broken", [(0,), (3,), (0, 4)])
def test_damaged_files_are_counted(broken, tmp_path):
    Series(stored=head(9), raw=lambda data, k: data[:-60] if k in broken else data).write(tmp_path)
    (refusal,) = read_volumes(tmp_path).refused
    assert refusal.reason == "truncated_pixel_data"
    assert f"{len(broken)} of 9 files" in refusal.sentence


def test_a_file_that_cannot_be_decoded_is_counted_too(tmp_path):
    from pydicom.uid import RLELossless

    from volumes.written import compress

    def raw(data, k):
        at = data.index(b"\x02\x00\x00\x00\x40\x00\x00\x00")
        return data[:at] + b"\x09" * 40 + data[at + 40 :] if k == 3 else data

    Series(stored=head(9), syntax=RLELossless, change=compress(RLELossless), raw=raw).write(tmp_path)
    (refusal,) = read_volumes(tmp_path).refused
    assert refusal.reason == "decode_failed"
    assert "1 of 9 files" in refusal.sentence
    (volume,) = read_volumes(tmp_path, settings=ReadingSettings(allow_gaps=True)).volumes
    assert volume.voxels.shape[-1] == 9
    assert {"allow_gaps", "damaged_files_left_out"} <= set(volume.notes)


def test_the_override_reaches_a_dicom_series(tmp_path):
    from wavespark.volumes import Override

    Series().write(tmp_path)
    ((source,), _) = find_sources(tmp_path, b"key")
    (volume,) = read_source(source, b"key", override=Override(modality="MR", contrast="T2", patient="P"))
    assert (volume.modality, volume.contrast, volume.patient) == ("MR", "T2", patient_id(b"key", "P"))
    assert nib.aff2axcodes(volume.affine) is not None
