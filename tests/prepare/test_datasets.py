"""Public data sets, on generated trees of the same form: what belongs together is found, what is no volume is none."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from prepare import trees
from prepare.heads import head_array, write_head
from wavespark.prepare import load_recipe, open_store, prepare
from wavespark.prepare.datasets import DATASETS, find_in_dataset
from wavespark.prepare.skull import shows_a_skull
from wavespark.rsna_labels import LABELS
from wavespark.volumes import ReadingSettings

FAST = ["spacing_mm=4.0", "slice_spacing_mm='same'"]


def stored(root, tmp_path, recipe="head-1mm"):
    report = prepare(root, tmp_path / "store", load_recipe(recipe, FAST))
    return report, open_store(tmp_path / "store")


@pytest.mark.parametrize("recipe", ["rsna-2025", "head-1mm"])
def test_rsna_series_carry_their_targets_contrast_marks_and_segmentations(tmp_path, recipe):
    made = trees.rsna(tmp_path / "data")
    report, store = stored(tmp_path / "data", tmp_path, recipe)
    assert (report.prepared, len(report.refused)) == (3, 0)
    by_contrast = {v.contrast: v for v in store}
    assert {(c, v.modality) for c, v in by_contrast.items()} == {("CTA", "CT"), ("MRA", "MR"), ("T2", "MR")}
    assert all(tuple(sorted(v.targets)) == tuple(sorted(LABELS)) for v in store)
    cta = by_contrast["CTA"]
    assert {name for name, value in cta.targets.items() if value} == {trees.LEFT_MCA, trees.PRESENT}
    assert not any(by_contrast["T2"].targets.values())
    ((name, place),) = cta.marks
    series = made["1.2.826.1"]
    assert name == trees.LEFT_MCA
    assert np.allclose(place, (series.affine @ (10.5, 20.25, 3, 1))[:3], atol=1e-4)
    assert set(cta.labels()) == {"cowseg", "segmentation"}
    middle = np.argwhere(cta.read_label("cowseg") == 5).mean(0)
    assert np.allclose((cta.affine @ (*middle, 1))[:3], (series.affine @ (14.5, 16.5, 12.5, 1))[:3], atol=2)
    assert by_contrast["MRA"].labels() == ()
    assert not os.path.exists("/tmp/never")


def test_rsna_reads_nothing_but_what_it_knows(tmp_path):
    trees.rsna(tmp_path / "data")
    stored(tmp_path / "data", tmp_path)
    text = "".join(p.read_text() for p in (tmp_path / "store").glob("*.json*"))
    for planted in ("Jane Doe", "PLANTED", '"64"', '"Female', "1.2.826"):
        assert planted not in text


@pytest.mark.parametrize("form", ["json", "csv"])
def test_openmind_lists_give_masks_and_tell_subjects_of_two_studies_apart(tmp_path, form):
    trees.openmind(tmp_path / "data", form)
    report, store = stored(tmp_path / "data", tmp_path, "openmind")
    assert (report.prepared, len(report.refused), len(store)) == (4, 0, 4)
    assert len({v.patient for v in store}) == 2
    assert sorted(v.contrast for v in store) == ["T1", "T1", "T2", "T2"] and {v.modality for v in store} == {"MR"}
    for v in store:
        front = v.affine[1, 1] * np.arange(v.size[1]) + v.affine[1, 3] > 80
        assert bool(v.read_foreground()[:, front].any()) == (v.contrast == "T1")


def test_the_openmind_list_itself_is_a_source_too(tmp_path):
    trees.openmind(tmp_path / "data", "json")
    report, _ = stored(tmp_path / "data" / "pretrain_data.json", tmp_path)
    assert (report.prepared, len(report.refused)) == (4, 0)
    listed = tmp_path / "data" / "pretrain_data.json"
    document = json.loads(listed.read_text().replace("$openmind/ds000001", "$openmind/../ds000001"))
    listed.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"'\.\.'"):
        prepare(listed, tmp_path / "other")


def test_bids_maps_go_to_the_images_that_they_name(tmp_path):
    trees.bids(tmp_path / "data")
    report, store = stored(tmp_path / "data", tmp_path)
    assert (report.prepared, len(report.refused), len(store)) == (4, 0, 4)
    secret = bytes.fromhex((tmp_path / "store" / "private" / "secret").read_text())
    found, _, _ = find_in_dataset(tmp_path / "data", secret, ReadingSettings())
    labels = {Path(s.relative).name.removesuffix(".nii.gz"): store[s.id].labels() for s in found}
    assert labels == {
        "sub-01_T1w": ("aseg-dseg",),
        "sub-01_acq-fast_T2w": ("aseg-dseg", "lesion-mask"),
        "sub-02_T1w": (),
        "sub-02_acq-fast_T2w": (),
    }
    hidden = {Path(s.relative).name: s.beside.hidden is not None for s in found}
    assert [name for name, is_hidden in hidden.items() if is_hidden] == ["sub-02_T1w.nii.gz"]
    t1 = next(store[s.id] for s in found if s.relative.endswith("sub-02_T1w.nii.gz"))
    centre = np.linalg.inv(t1.affine) @ (44, 52, 42, 1)
    assert not t1.read_foreground()[tuple(centre[:3].round().astype(int))]


def test_plain_takes_every_file_by_itself(tmp_path):
    trees.bids(tmp_path / "data")
    report = prepare(tmp_path / "data", tmp_path / "store", load_recipe("head-1mm", [*FAST, "dataset=plain"]))
    assert report.prepared + len(report.refused) == 9


def test_deeplesion_is_cut_at_gaps_and_only_heads_are_kept(tmp_path):
    image = pytest.importorskip("PIL.Image")
    trees.deeplesion(tmp_path / "data", lambda path, pixels: image.fromarray(pixels).save(path))
    report, store = stored(tmp_path / "data", tmp_path, "deeplesion")
    assert [r.reason for r in report.refused] == ["not_a_head"]
    assert sorted(v.source_shape[2] for v in store) == [12, 13, 13]
    assert len({v.patient for v in store}) == 1 and len({v.id for v in store}) == 3
    again = prepare(tmp_path / "data", tmp_path / "store", load_recipe("deeplesion", FAST))
    assert (again.prepared, again.already_there) == (0, 3)


def test_a_short_deeplesion_stack_is_refused_with_its_length(tmp_path):
    image = pytest.importorskip("PIL.Image")
    trees.deeplesion(tmp_path / "data", lambda path, pixels: image.fromarray(pixels).save(path))
    folder = tmp_path / "data" / "Images_png" / "000001_01_01"
    for path in sorted(folder.iterdir())[5:]:
        path.unlink()
    report, _ = stored(tmp_path / "data", tmp_path, "deeplesion")
    assert sorted(r.reason for r in report.refused) == ["not_a_head", "too_few_slices"]
    assert any("is 5 long: 8 are needed" in r.sentence for r in report.refused)


@pytest.mark.parametrize("spacing", [(4.0, 4.0, 4.5), (3.8, 3.6, 4.0)])
def test_a_skull_is_seen_in_heads_and_not_in_bodies(spacing):
    affine = np.diag([*spacing, 1])
    for seed in range(3):
        assert shows_a_skull(head_array((48, 56, 44), "CT", seed), affine)
    assert not shows_a_skull(trees.torso((80, 80, 60)), affine)
    assert not shows_a_skull(np.full((30, 30, 30), -1000, np.float32), affine)


@pytest.mark.parametrize(("square_cm", "is_head"), [(25, False), (60, True)])
def test_bone_must_enclose_as_much_as_a_small_head(square_cm, is_head):
    x, y = np.meshgrid(*2 * [2.0 * np.arange(80) - 79], indexing="ij")
    radius, inner = np.hypot(x, y), (100 * square_cm / np.pi) ** 0.5
    plane = np.select([radius < inner, radius < inner + 6], [40.0, 900.0], -1000.0).astype(np.float32)
    assert shows_a_skull(np.repeat(plane[..., None], 8, 2), np.diag([2.0, 2.0, 3.0, 1])) == is_head


def test_the_real_head_ct_has_a_skull_and_the_lung_has_none(real_data, tmp_path):
    for name in ("cranium_ct.nii.gz", "pyradiomics_lung1_image.nrrd"):
        (tmp_path / name).symlink_to(real_data / name)
    recipe = load_recipe("head-1mm", ["only_heads=true", "spacing_mm=3.0", "reading.modality='CT'"])
    assert prepare(real_data / "cranium_ct.nii.gz", tmp_path / "a", recipe).prepared == 1
    lung = prepare(real_data / "pyradiomics_lung1_image.nrrd", tmp_path / "b", recipe)
    assert [r.reason for r in lung.refused] == ["not_a_head"]


def test_each_data_set_knows_its_own_folder_and_no_other(tmp_path):
    trees.rsna(tmp_path / "rsna-2025")
    trees.openmind(tmp_path / "openmind", "json")
    trees.bids(tmp_path / "bids")
    (tmp_path / "deeplesion").mkdir()
    (tmp_path / "deeplesion" / "DL_info.csv").write_text("File_name\n")
    write_head(tmp_path / "none" / "a.nii.gz", 1)
    for folder in tmp_path.iterdir():
        known = [d.name for d in DATASETS if d.is_it(bytes(folder))]
        assert known == ([] if folder.name == "none" else [folder.name])


def test_a_broken_table_is_one_clear_refusal(tmp_path):
    trees.rsna(tmp_path / "data")
    (tmp_path / "data" / "train.csv").write_bytes(b'SeriesInstanceUID,"Modality\n1,"x"y\n')
    with pytest.raises(ValueError, match=r"train\.csv cannot be read as a table"):
        prepare(tmp_path / "data", tmp_path / "store")


def test_a_label_map_that_is_empty_is_still_a_label_map(tmp_path):
    trees.bids(tmp_path / "data")
    path = tmp_path / "data" / "derivatives" / "seg" / "sub-01" / "anat" / "sub-01_desc-aseg_dseg.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((24, 28, 22), np.int16), np.diag([4, 4, 4, 1])), path)
    _, store = stored(tmp_path / "data", tmp_path)
    assert sorted(v.labels() for v in store) == [(), (), ("aseg-dseg",), ("aseg-dseg", "lesion-mask")]
    empty = next(v for v in store if v.labels() == ("aseg-dseg",))
    assert dict(empty.label_values) == {"aseg-dseg": (0,)}
