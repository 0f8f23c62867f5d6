"""Label maps and deface masks follow their volume onto its grid, and a bad one never costs the volume."""

import json

import nibabel as nib
import numpy as np
import pytest

from prepare.heads import head_array, write_head
from wavespark.errors import InputError
from wavespark.files import read_lines
from wavespark.prepare import open_store, prepare
from wavespark.prepare.beside import Attached, without_hidden
from wavespark.prepare.labels import resample_labels
from wavespark.volumes import read_label_map

AFFINE = np.array([[-4.0, 0, 0, 50], [0, 4, 0, -60], [0, 0, 4, -40], [0, 0, 0, 1]])


def a_head(root, seed=0, name="scan.nii.gz"):
    """A head of 24 x 28 x 22 voxels with a label map (1 = the patient's right half, 7 = left) on a finer grid."""
    write_head(root / name, seed, affine=AFFINE)
    fine = AFFINE @ np.diag([0.5, 0.5, 1, 1])
    index = np.stack(np.meshgrid(*map(np.arange, (48, 56, 22)), indexing="ij"), -1)
    right = index @ fine[:3, :3].T[:, 0] + fine[0, 3]
    inside = np.abs(index - (24, 28, 11)).max(-1) < 9
    labels = np.where(inside, np.where(right > 0, 1, 7), 0).astype(np.int16)
    nib.save(nib.Nifti1Image(labels, fine), root / "labels.nii.gz")
    return labels, fine


def a_mask(root, name="face.nii.gz", affine=AFFINE, shape=(24, 28, 22)):
    """The front third is hidden."""
    mask = np.zeros(shape, np.uint8)
    mask[:, 18:] = 1
    nib.save(nib.Nifti1Image(mask, affine), root / name)
    return mask


def manifest(root, *rows, header="source,label,anonymisation_mask"):
    (root / "list.csv").write_text("\n".join([header, *rows]) + "\n")
    return root / "list.csv"


def test_labels_are_stored_on_the_grid_of_their_volume_and_read_box_by_box(tmp_path):
    labels, fine = a_head(tmp_path)
    report = prepare(manifest(tmp_path, "scan.nii.gz,labels.nii.gz,"), tmp_path / "store", "head-1mm")
    (v,) = open_store(tmp_path / "store")
    assert (report.prepared, len(report.refused), v.labels()) == (1, 0, ("label",))
    stored = v.read_label("label")
    assert stored.shape == v.size and stored.dtype == np.uint8 and dict(v.label_values) == {"label": (0, 1, 7)}
    assert np.array_equal(stored, resample_labels(labels.astype(np.uint8), fine, v.size, v.affine))
    start, size = (20, 30, 10), (40, 33, 25)
    box = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    assert np.array_equal(v.read_label("label", start, size), stored[box])
    x = (v.affine[0, 0] * np.arange(v.size[0]) + v.affine[0, 3])[:, None, None]
    assert np.all(np.broadcast_to(x, v.size)[stored == 1] > -1) and np.all(np.broadcast_to(x, v.size)[stored == 7] < 1)
    with pytest.raises(KeyError, match="has no label map 'other', it has label"):
        v.read_label("other")


def test_defaced_voxels_are_no_foreground_and_do_not_set_the_intensity(tmp_path):
    for name in ("plain", "masked"):
        (tmp_path / name).mkdir()
        a_head(tmp_path / name)
        array = head_array((24, 28, 22), "MR", 0).astype(np.int16)
        array[:, 18:] = 3000  # what was made unrecognisable is bright
        nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / name / "scan.nii.gz")
        a_mask(tmp_path / name)
    prepare(manifest(tmp_path / "plain", "scan.nii.gz,,"), tmp_path / "a", "head-1mm")
    prepare(manifest(tmp_path / "masked", "scan.nii.gz,,face.nii.gz"), tmp_path / "b", "head-1mm")
    (a,), (b,) = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    y = b.affine[1, 1] * np.arange(b.size[1]) + b.affine[1, 3]
    hidden_from = AFFINE[1, 1] * 17.5 + AFFINE[1, 3]
    assert not b.read_foreground()[:, y > hidden_from + 1].any()
    assert a.read_foreground().sum() > b.read_foreground().sum() > 0
    assert abs(b.read()[0][b.read_foreground()].std() - 1) < 0.05
    assert not np.isclose(a.encoding.offset, b.encoding.offset, rtol=0.2)


def test_a_mask_on_another_grid_hides_the_same_place(volume):
    head = volume(head_array((24, 28, 22)), AFFINE)
    hidden = np.zeros((24, 28, 22), bool)
    hidden[10:, 18:] = True
    turned = AFFINE @ np.array([[-1.0, 0, 0, 23], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    valid = [without_hidden(head, Attached(hidden=m)).valid for m in ((hidden, AFFINE), (hidden[::-1], turned))]
    assert np.array_equal(valid[0], ~hidden) and np.array_equal(valid[1], ~hidden)


@pytest.mark.parametrize("kind", ["cut", "fractions", "missing", "elsewhere", "text"])
def test_a_bad_label_map_is_named_and_its_volume_is_kept(tmp_path, kind):
    labels, fine = a_head(tmp_path)
    path = tmp_path / "labels.nii.gz"
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "fractions":
        nib.save(nib.Nifti1Image(labels * 0.5, fine), path)
    elif kind == "missing":
        path.unlink()
    elif kind == "elsewhere":
        fine[0, 3] += 4000
        nib.save(nib.Nifti1Image(labels, fine), path)
    else:
        path.write_text("labels of PLANTED^NAME")
    reason = {
        "cut": "truncated",
        "fractions": "unsupported_dtype",
        "missing": "not_found",
        "elsewhere": "label_outside",
        "text": "unsupported_format",
    }[kind]
    store = tmp_path / "store"
    report = prepare(manifest(tmp_path, "scan.nii.gz,labels.nii.gz,"), store, "head-1mm")
    assert (report.prepared, [r.reason for r in report.refused]) == (1, [reason])
    assert open_store(store)[0].labels() == ()
    assert "label map" in report.refused[0].sentence and "PLANTED" not in report.refused[0].sentence
    revealed = {r["id"]: r["path"] for r in read_lines(store / "private" / "sources.jsonl", strict=True)}
    assert revealed[report.refused[0].source_id] == str(path)


def test_a_mended_label_map_is_taken_in_and_its_refusal_goes(tmp_path):
    a_head(tmp_path)
    good = (tmp_path / "labels.nii.gz").read_bytes()
    (tmp_path / "labels.nii.gz").write_bytes(good[:-100])
    listed, store = manifest(tmp_path, "scan.nii.gz,labels.nii.gz,"), tmp_path / "store"
    assert len(prepare(listed, store).refused) == 1
    (tmp_path / "labels.nii.gz").write_bytes(good)
    report = prepare(listed, store)
    assert (report.prepared, len(report.refused), len(open_store(store).refused)) == (1, 0, 0)
    assert open_store(store)[0].labels() == ("label",)
    again = prepare(listed, store)
    assert (again.prepared, again.already_there) == (0, 1)
    assert open_store(store).verify() == ()
    (store / "items" / open_store(store)[0].id / "label_label.b2nd").write_bytes(b"damaged")
    assert [d.file for d in open_store(store).verify()] == ["label_label.b2nd"]


def test_json_and_csv_say_the_same(tmp_path):
    a_head(tmp_path)
    a_mask(tmp_path)
    row = {
        "source": "scan.nii.gz",
        "labels": {"halves": "labels.nii.gz"},
        "anonymisation_mask": "face.nii.gz",
        "contrast": "T2",
    }
    (tmp_path / "list.jsonl").write_text(json.dumps(row) + "\n")
    text = "scan.nii.gz,labels.nii.gz,face.nii.gz,T2"
    listed = manifest(tmp_path, text, header="source,label:halves,anonymisation_mask,contrast")
    for path, store in ((tmp_path / "list.jsonl", "a"), (listed, "b")):
        prepare(path, tmp_path / store)
        (v,) = open_store(tmp_path / store)
        assert (v.labels(), v.contrast, v.modality) == (("halves",), "T2", "MR")
    a, b = (open_store(tmp_path / s)[0] for s in "ab")
    assert np.array_equal(a.read_foreground(), b.read_foreground())


@pytest.mark.parametrize("text", ["../labels.nii.gz", "/etc/passwd", "http://x/labels.nii.gz", "a/../../b.nii.gz"])
def test_a_label_map_outside_the_folder_of_the_manifest_is_refused(tmp_path, text):
    a_head(tmp_path)
    for header in ("source,label", "source,anonymisation_mask"):
        listed = manifest(tmp_path, f"scan.nii.gz,{text}", header=header)
        with pytest.raises(InputError) as caught:
            prepare(listed, tmp_path / "store")
        assert caught.value.reason == "bad_manifest"


def test_a_label_map_behind_a_link_and_a_name_that_is_a_sentence_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    a_head(tmp_path / "data")
    (tmp_path / "secret.nii.gz").write_bytes((tmp_path / "data" / "labels.nii.gz").read_bytes())
    (tmp_path / "data" / "link.nii.gz").symlink_to(tmp_path / "secret.nii.gz")
    with pytest.raises(InputError, match="link"):
        prepare(manifest(tmp_path / "data", "scan.nii.gz,link.nii.gz,"), tmp_path / "store")
    header = "source,label:Jane Doe's lesion"
    with pytest.raises(InputError, match="name must be"):
        prepare(manifest(tmp_path / "data", "scan.nii.gz,labels.nii.gz", header=header), tmp_path / "store")


@pytest.mark.parametrize(("low", "high", "kind"), [(0, 200, "uint8"), (-3, 200, "int16"), (0, 70000, "int32")])
def test_a_label_map_takes_the_smallest_kind_of_number_that_holds_it(tmp_path, low, high, kind):
    values = np.full((4, 5, 6), low, np.int32)
    values[1, 2, 3] = high
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "a.nii.gz")
    read, affine = read_label_map(bytes(tmp_path / "a.nii.gz"))
    assert read.dtype == kind and np.array_equal(read, values) and np.allclose(affine, AFFINE)
    empty = np.zeros((4, 5, 6), np.int16)
    nib.save(nib.Nifti1Image(empty, AFFINE), tmp_path / "empty.nii.gz")
    assert not read_label_map(bytes(tmp_path / "empty.nii.gz"))[0].any()
