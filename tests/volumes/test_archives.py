"""A zip or tar is read like the folder that it holds, within bounds, and nothing is written anywhere that stays."""

import gzip
import io
import os
import pickle
import tarfile
import tempfile
import zipfile

import nibabel as nib
import pytest

from volumes.written import Series, head, nifti_bytes
from wavespark.errors import InputError
from wavespark.volumes import find_sources, read_source, read_volumes, source_id


def study(folder):
    """A study with two series, a NIfTI file and a text."""
    Series().write(folder / "IM" / "one")
    Series(uid="1.2.3.4", stored=head(seed=3)).write(folder / "IM" / "two")
    (folder / "sub-1_T1w.nii.gz").write_bytes(gzip.compress(bytes(nifti_bytes())))
    (folder / "README.txt").write_text("PLANTED")
    return folder


def packed(folder, target):
    """The folder as an archive; its kind is taken from the name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(folder))
    else:
        mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[target.suffix]
        with tarfile.open(target, mode) as archive:
            for path in files:
                archive.add(path, path.relative_to(folder))
    return target


@pytest.mark.parametrize("name", ["study.zip", "study.tar", "study.tar.gz", "study.tgz", "study.tar.bz2", "study.tar.xz"])
def test_an_archive_gives_what_its_folder_gives(name, tmp_path, monkeypatch):
    folder = study(tmp_path / "folder")
    (tmp_path / "in").mkdir()
    (tmp_path / "temporary").mkdir()
    archive = packed(folder, tmp_path / "in" / name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    plain = read_volumes(folder, secret=b"key")
    for path in (archive, tmp_path / "in"):
        found = read_volumes(path, secret=b"key")
        assert not found.refused
        assert sorted(v.content for v in found.volumes) == sorted(v.content for v in plain.volumes)
        assert {v.contrast for v in found.volumes} == {v.contrast for v in plain.volumes}
        assert {v.id for v in found.volumes} == {
            source_id(b"key", Series().uid), source_id(b"key", "1.2.3.4"), source_id(b"key", f"{name}/sub-1_T1w.nii.gz")}  # fmt: skip
    assert os.listdir(tmp_path / "in") == [name]
    assert not os.listdir(tmp_path / "temporary")


def test_a_source_in_an_archive_can_be_read_by_another_process(tmp_path):
    archive = packed(study(tmp_path / "folder"), tmp_path / "study.zip")
    (sources, _) = find_sources(archive, b"key")
    for source in pickle.loads(pickle.dumps(sources)):
        assert read_source(source, b"key")


def test_an_archive_that_changed_is_read_anew(tmp_path):
    archive = packed(study(tmp_path / "folder"), tmp_path / "study.zip")
    assert len(read_volumes(archive).volumes) == 3
    Series(uid="1.9").write(tmp_path / "other")
    packed(tmp_path / "other", archive)
    assert len(read_volumes(archive).volumes) == 1


def zip_of(*members, **flags):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = flags.get("mode", 0o100644) << 16
            archive.writestr(info, content)
    return data.getvalue()


def tar_of(name="a.nii", kind=tarfile.REGTYPE, link="", content=b""):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(content)
        archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def _encrypted():
    data = bytearray(zip_of(("a.nii", bytes(nifti_bytes()))))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


UNSAFE = {
    "up.zip": zip_of(("../a.nii", b"x")),
    "up_within.zip": zip_of(("a/../../b.nii", b"x")),
    "backslash.zip": zip_of(("..\\a.nii", b"x")),
    "absolute.zip": zip_of(("/etc/passwd", b"x")),
    "drive.zip": zip_of(("C:/a.nii", b"x")),
    "link.zip": zip_of(("a.nii", b"/etc/passwd"), mode=0o120777),
    "encrypted.zip": _encrypted(),
    "bomb.zip": zip_of(("a.nii", bytes(nifti_bytes()) + bytes(100 << 20))),
    "broken.zip": b"PK\x03\x04" + bytes(99),
    "up.tar": tar_of("../a.nii", content=b"x"),
    "absolute.tar": tar_of("/etc/a.nii", content=b"x"),
    "symbolic.tar": tar_of(kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "hard.tar": tar_of(kind=tarfile.LNKTYPE, link="/etc/passwd"),
    "device.tar": tar_of(kind=tarfile.CHRTYPE),
    "pipe.tar": tar_of(kind=tarfile.FIFOTYPE),
    "cut.tar": tar_of(content=bytes(5000))[:2000],
    "cut.tar.gz": gzip.compress(tar_of(content=bytes(5000)))[:-10],
    "broken.tar": bytes(257) + b"ustar" + bytes(99),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_archive_is_refused_as_a_whole(name, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(UNSAFE[name])
    with pytest.raises(InputError) as raised:
        read_volumes(tmp_path / "in" / name)
    assert raised.value.reason == "unsafe_archive"
    found = read_volumes(tmp_path / "in")
    assert [r.reason for r in found.refused] == ["unsafe_archive"]
    assert not found.volumes
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_of(("a.nii", b"1"), ("a.nii", b"2")))
    assert [r.reason for r in read_volumes(tmp_path).refused] == ["unsafe_archive"]


def test_an_archive_in_an_archive_is_refused_by_name_and_the_rest_read(tmp_path):
    inner = zip_of(("b.nii", bytes(nifti_bytes())))
    (tmp_path / "a.zip").write_bytes(zip_of(("c.nii", bytes(nifti_bytes())), ("inner.zip", inner), ("inner.tar", tar_of(content=b"x"))))
    found = read_volumes(tmp_path, secret=b"key")
    assert len(found.volumes) == 1
    assert {r.source_id: r.reason for r in found.refused} == {
        source_id(b"key", f"a.zip/{name}"): "unsafe_archive" for name in ("inner.zip", "inner.tar")}  # fmt: skip


def test_a_damaged_member_is_refused_and_the_rest_read(tmp_path):
    data = bytearray(zip_of(("a.nii", bytes(nifti_bytes())), ("b.nii", bytes(nifti_bytes()))))
    data[60:64] = b"\xff\x00\xff\x00"
    (tmp_path / "a.zip").write_bytes(data)
    found = read_volumes(tmp_path)
    assert len(found.volumes) == 1
    assert [r.reason for r in found.refused] == ["corrupt"]


def test_documents_that_are_zips_are_no_archives(tmp_path):
    (tmp_path / "letter.docx").write_bytes(zip_of(("word/document.xml", b"x")))
    (tmp_path / "weights.pt").write_bytes(zip_of(("data.pkl", b"x")))
    nib.save(nib.Nifti1Image(head().T.copy(), None), tmp_path / "a.nii")
    found = read_volumes(tmp_path)
    assert len(found.volumes) == 1
    with pytest.raises(InputError) as raised:
        read_volumes(tmp_path / "weights.pt")
    assert raised.value.reason == "unsafe_file"


def test_other_archives_say_that_they_must_be_unpacked(tmp_path):
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(99))
    with pytest.raises(InputError) as raised:
        read_volumes(tmp_path / "a.7z")
    assert raised.value.reason == "unsafe_archive"
    assert "unpack" in raised.value.sentence
