"""A manifest names inputs below its own folder and can do nothing else."""

import json

import nibabel as nib
import pytest

from volumes.written import Series, head, nifti
from wavespark.errors import InputError
from wavespark.volumes import read_volumes, source_id


@pytest.fixture
def data(tmp_path):
    """A folder with two NIfTI files and a series, and a NIfTI file beside it."""
    root = tmp_path / "data"
    (root / "a").mkdir(parents=True)
    nib.save(nifti(), root / "a" / "x.nii.gz")
    nib.save(nifti(head(seed=1).T.copy()), root / "y.nii.gz")
    Series().write(root / "series")
    nib.save(nifti(), tmp_path / "outside.nii.gz")
    return root


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.json", json.dumps(["a/x.nii.gz", "series"])),
        ("m.json", json.dumps({"subjects": {"s1": {"image_path": "a/x.nii.gz"}, "s2": [{"source": "./series"}]}})),
        ("m.jsonl", '{"path": "a/x.nii.gz"}\n\n{"path": "series/"}\n'),
        ("m.csv", "name,source\none,a/x.nii.gz\ntwo,series\ntwo,series\n"),
    ],
)
def test_a_manifest_gives_what_it_names_and_nothing_else(name, text, data):
    (data / name).write_text(text)
    found = read_volumes(data / name, secret=b"key")
    assert not found.refused
    assert {v.id for v in found.volumes} == {source_id(b"key", "a/x.nii.gz"), source_id(b"key", Series().uid)}


@pytest.mark.parametrize(
    "named", ["../outside.nii.gz", "/etc/passwd", "a/../../outside.nii.gz", "https://example.org/x.nii.gz", "C:\\x.nii", "", "a\0b", "x" * 9999]
)
def test_a_path_that_leaves_the_folder_refuses_the_manifest(named, data):
    (data / "m.json").write_text(json.dumps(["y.nii.gz", named]))
    with pytest.raises(InputError) as raised:
        read_volumes(data / "m.json")
    assert raised.value.reason == "bad_manifest"


@pytest.mark.parametrize(
    ("name", "text"),
    [("m.json", "{"), ("m.json", "[]"), ("m.json", "[" * 100000), ("m.jsonl", "{}\nx"), ("m.csv", ""), ("m.csv", "a,b\n1,2"), ("m.json", "\udcff")],
)
def test_a_manifest_that_is_none_is_refused(name, text, data):
    (data / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as raised:
        read_volumes(data / name)
    assert raised.value.reason == "bad_manifest"


def test_what_a_manifest_names_and_is_not_usable_is_refused_by_name(data):
    (data / "note.txt").write_text("hello")
    (data / "link").symlink_to(data.parent)
    names = ["y.nii.gz", "gone.nii.gz", "note.txt", "link/outside.nii.gz"]
    (data / "m.json").write_text(json.dumps(names))
    found = read_volumes(data / "m.json", secret=b"key")
    assert len(found.volumes) == 1
    reasons = {r.source_id: r.reason for r in found.refused}
    assert [reasons[source_id(b"key", name)] for name in names[1:]] == ["not_found", "unsupported_format", "outside_root"]
