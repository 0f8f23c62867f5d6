"""One folder with everything in it: all good ones used, each bad one named once; paths that cannot be used at all."""

import os
import pickle
import signal
from collections import Counter
from contextlib import contextmanager

import nibabel as nib
import numpy as np
import pytest

from volumes.good import GOOD
from volumes.written import Series, head, nifti, save
from wavespark.errors import InputError, VolumeError
from wavespark.volumes import ReadingSettings, find_sources, read_source, read_volumes, source_id


def test_all_good_ones_are_used_and_each_bad_one_is_named_once(tmp_path):
    for n in range(6):
        nib.save(nifti(head(seed=n).T.copy()), tmp_path / f"sub-{n}_T1w.nii.gz")
    good = (tmp_path / "sub-0_T1w.nii.gz").read_bytes()
    bad = {
        "empty.nii.gz": b"",
        "cut.nii.gz": good[: len(good) // 2],
        "text.nii.gz": b"hello " * 99,
        "text.dcm": b"hello " * 99,
        "x.mha": b"ObjectType = Image",
        "x.vtk": b"# vtk DataFile",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "README.md").write_text("not an image, and not counted as one")
    Series().write(tmp_path / "dicom" / "one")
    Series(uid="1.2.3", skip=(3,)).write(tmp_path / "dicom" / "two")
    os.mkfifo(tmp_path / "pipe.nii")
    found = read_volumes(tmp_path, secret=b"key")
    assert len(found.volumes) == 7
    refused = Counter(r.source_id for r in found.refused)
    assert refused == Counter(source_id(b"key", name) for name in [*bad, "pipe.nii", "1.2.3"])


def test_ids_are_of_relative_path_or_series_and_move_with_the_folder(tmp_path):
    for place in ("a", "b"):
        Series().write(tmp_path / place / "series")
        nib.save(nifti(), tmp_path / place / "x.nii.gz")
    found = [read_volumes(tmp_path / place, secret=b"key") for place in ("a", "b")]
    ids = [sorted(v.id for v in f.volumes) for f in found]
    assert ids[0] == ids[1] == sorted([source_id(b"key", "x.nii.gz"), source_id(b"key", Series().uid)])
    contents = [sorted(v.content for v in f.volumes) for f in found]
    assert contents[0] == contents[1]
    assert len(set(contents[0])) == 2


def test_volumes_of_one_patient_share_a_pseudonym(tmp_path):
    Series().write(tmp_path / "a")
    Series(uid="1.2.3").write(tmp_path / "b")
    Series(uid="1.2.4", change=lambda d, k: setattr(d, "PatientID", "other")).write(tmp_path / "c")
    Series(uid="1.2.5", change=lambda d, k: delattr(d, "PatientID")).write(tmp_path / "d")
    for name in ("sub-1/a.nii.gz", "sub-1/b.nii.gz", "c.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nib.save(nifti(), tmp_path / name)
    patients = Counter(v.patient for v in read_volumes(tmp_path).volumes)
    assert sorted(patients.values()) == [1, 1, 1, 2, 2]


def test_a_random_secret_each_time_unlinks_ids(tmp_path):
    nib.save(nifti(), tmp_path / "a.nii.gz")
    first, second = (read_volumes(tmp_path).volumes[0] for _ in range(2))
    assert first.id != second.id
    assert first.content == second.content


def test_a_source_can_be_sent_to_another_process(tmp_path):
    Series(name=lambda k: b"\xff%d" % k).write(tmp_path)
    sources, _ = find_sources(tmp_path, b"key")
    (volume,) = read_source(pickle.loads(pickle.dumps(sources[0])), b"key")
    assert volume.voxels.shape == (1, 11, 9, 7)


def test_a_slice_that_vanishes_before_it_is_read_refuses_the_series(tmp_path):
    Series().write(tmp_path)
    sources, _ = find_sources(tmp_path, b"key")
    (tmp_path / "0003.dcm").unlink()
    with pytest.raises(VolumeError) as raised:
        read_source(sources[0], b"key")
    assert raised.value.reason == "unreadable_slice"


def test_a_link_that_was_named_itself_is_followed(tmp_path):
    nib.save(nifti(), tmp_path / "a.nii.gz")
    (tmp_path / "link").symlink_to(tmp_path / "a.nii.gz")
    assert len(read_volumes(tmp_path / "link").volumes) == 1


def test_links_below_the_folder_are_followed_to_what_is_not_read_under_its_own_name(tmp_path):
    """As in a BIDS data set of git-annex: the names are links, the content lies in a hidden folder of the same root."""
    hidden = tmp_path / ".git" / "annex"
    hidden.mkdir(parents=True)
    nib.save(nifti(head(seed=1).T - 1024), hidden / "SHA256-1.nii.gz")
    Series().write(hidden / "series")
    (tmp_path / "sub-1_T1w.nii.gz").symlink_to(".git/annex/SHA256-1.nii.gz")
    (tmp_path / "dicom").symlink_to(hidden / "series")
    nib.save(nifti(), tmp_path / "plain_T2w.nii.gz")
    (tmp_path / "again_T2w.nii.gz").symlink_to(tmp_path / "plain_T2w.nii.gz")
    (tmp_path / "up").symlink_to(tmp_path)
    found = read_volumes(tmp_path, secret=b"key")
    assert not found.refused
    assert {v.id: (v.modality, v.contrast) for v in found.volumes} == {
        source_id(b"key", "sub-1_T1w.nii.gz"): ("MR", "T1"),
        source_id(b"key", "plain_T2w.nii.gz"): ("MR", "T2"),
        source_id(b"key", Series().uid): ("CT", None),
    }


def test_the_sidecar_beside_a_link_counts(tmp_path):
    (tmp_path / ".git").mkdir()
    nib.save(nifti(), tmp_path / ".git" / "x.nii.gz")
    (tmp_path / "a.nii.gz").symlink_to(".git/x.nii.gz")
    (tmp_path / "a.json").write_text('{"Modality": "CT"}')
    assert [v.modality for v in read_volumes(tmp_path).volumes] == ["CT"]


def test_a_link_out_of_the_folder_is_refused_by_name(tmp_path):
    (tmp_path / "in").mkdir()
    nib.save(nifti(), tmp_path / "outside.nii.gz")
    (tmp_path / "in" / "a.nii.gz").symlink_to(tmp_path / "in" / "b.nii.gz")
    (tmp_path / "in" / "b.nii.gz").symlink_to(tmp_path / "outside.nii.gz")
    found = read_volumes(tmp_path / "in", secret=b"key")
    assert {r.source_id: r.reason for r in found.refused} == {source_id(b"key", f"{n}.nii.gz"): "outside_root" for n in "ab"}


def test_links_are_not_followed_even_when_swapped_in_later(tmp_path):
    nib.save(nifti(), tmp_path / "a.nii.gz")
    nib.save(nifti(), tmp_path / "b.nii.gz")
    sources, _ = find_sources(tmp_path / "a.nii.gz", b"key")
    (tmp_path / "a.nii.gz").unlink()
    (tmp_path / "a.nii.gz").symlink_to(tmp_path / "b.nii.gz")
    with pytest.raises(VolumeError) as raised:
        read_source(sources[0], b"key")
    assert raised.value.reason == "not_a_regular_file"


def test_a_pipe_swapped_in_later_is_not_waited_on(tmp_path):
    nib.save(nifti(), tmp_path / "a.nii.gz")
    sources, _ = find_sources(tmp_path, b"key")
    (tmp_path / "a.nii.gz").unlink()
    os.mkfifo(tmp_path / "a.nii.gz")
    signal.alarm(5)  # a reader that waits is killed instead of hanging the suite
    with pytest.raises(VolumeError) as raised:
        read_source(sources[0], b"key")
    signal.alarm(0)
    assert raised.value.reason == "not_a_regular_file"


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX users")
def test_what_may_not_be_read_is_named(tmp_path):
    nib.save(nifti(), tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").chmod(0)
    (tmp_path / "closed").mkdir(mode=0)
    nib.save(nifti(), tmp_path / "b.nii.gz")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    with _without_privileges():
        found = read_volumes(tmp_path)
    assert len(found.volumes) == 1
    assert [r.reason for r in found.refused] == ["permission_denied"] * 2


@contextmanager
def _without_privileges():
    """Root may read everything; the tests often run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)


@pytest.mark.parametrize(("name", "data"), [("a.pkl", b"\x80\x04" + bytes(99)), ("a.pt", b"anything")])
def test_a_pickle_given_as_the_path_is_an_input_error(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as raised:
        read_volumes(tmp_path / name)
    assert raised.value.reason == "unsafe_file"


def test_a_pipe_given_as_the_path_is_an_input_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError) as raised:
        read_volumes(tmp_path / "pipe")
    assert raised.value.reason == "unsafe_file"


@pytest.mark.parametrize("make", [False, True])
def test_nothing_at_the_path_is_an_input_error(make, tmp_path):
    if make:
        (tmp_path / "x").mkdir()
    with pytest.raises(InputError) as raised:
        read_volumes(tmp_path / "x")
    assert raised.value.reason == "no_input"


@pytest.mark.parametrize(("name", "shown"), [("gone", "gone"), ("two\nlines", "two\\x0alines"), (b"\xff", "\\udcff")])
def test_a_path_with_nothing_at_it_is_named(name, shown, tmp_path):
    path = bytes(tmp_path) + b"/" + name if isinstance(name, bytes) else tmp_path / name
    with pytest.raises(InputError, match="there is nothing at") as raised:
        read_volumes(path)
    assert f"{tmp_path}/{shown}:" in raised.value.sentence


def test_a_single_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    found = read_volumes(tmp_path / "a.txt")
    assert [r.reason for r in found.refused] == ["unsupported_format"]


def test_one_file_of_a_series_given_as_the_path_is_too_few_slices(tmp_path):
    Series().write(tmp_path)
    assert [r.reason for r in read_volumes(tmp_path / "0002.dcm").refused] == ["too_few_slices"]


def test_the_modality_can_be_overridden(tmp_path):
    dataset_change = lambda d, k: (setattr(d, "Modality", "OT"), setattr(d, "SOPClassUID", "1.2.3"))  # noqa: E731
    Series(change=dataset_change).write(tmp_path)
    assert [r.reason for r in read_volumes(tmp_path).refused] == ["not_an_image_volume"]
    settings = ReadingSettings(modality="MR", contrast="T2")
    (volume,) = read_volumes(tmp_path, settings=settings).volumes
    assert (volume.modality, volume.contrast) == ("MR", "T2")


def test_series_without_uid_are_told_apart_by_folder(tmp_path):
    for name in ("a", "b"):
        Series(change=lambda d, k: delattr(d, "SeriesInstanceUID")).write(tmp_path / name)
    assert len({v.id for v in read_volumes(tmp_path).volumes}) == 2


def test_a_limit_of_voxels_is_kept_for_every_format(tmp_path):
    Series().write(tmp_path / "series")
    nib.save(nifti(), tmp_path / "a.nii.gz")
    save(Series(uid="1.2.3").enhanced(), tmp_path / "multi.dcm")
    GOOD["minc_1"].write(tmp_path / "minc")
    GOOD["nrrd_gzip_right-anterior-superior"].write(tmp_path / "nrrd")
    GOOD["mgz"].write(tmp_path / "mgz")
    found = read_volumes(tmp_path, settings=ReadingSettings(max_voxels=7 * 9 * 11 - 1))
    assert [r.reason for r in found.refused] == ["too_large"] * 6
    assert len(read_volumes(tmp_path, settings=ReadingSettings(max_voxels=7 * 9 * 11)).volumes) == 6


def test_the_content_hash_is_of_values_and_place_and_not_of_the_file(tmp_path):
    for name in ("a.nii", "b.nii.gz"):
        nib.save(nifti(), tmp_path / name)
    nib.save(nifti(head(seed=1).T.copy()), tmp_path / "other_values.nii")
    nib.save(nifti(affine=np.diag([0.5, 0.7, 2.6, 1])), tmp_path / "other_place.nii")
    found = read_volumes(tmp_path, secret=b"key")
    contents = {v.id: v.content for v in found.volumes}
    a, b, c, d = (contents[source_id(b"key", n)] for n in ("a.nii", "b.nii.gz", "other_values.nii", "other_place.nii"))
    assert a == b
    assert len({a, c, d}) == 3


def test_voxels_are_finite_float32_and_laid_out_with_i_fastest(tmp_path):
    Series().write(tmp_path / "series")
    nib.save(nifti(), tmp_path / "a.nii.gz")
    for volume in read_volumes(tmp_path).volumes:
        assert volume.voxels.dtype == np.float32
        assert volume.voxels[0].flags.f_contiguous
