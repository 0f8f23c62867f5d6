"""Painted heads: what a label map becomes."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from wavespark.errors import SettingsError
from wavespark.prepare import load_recipe, open_store, prepare
from wavespark.samples.painting import CLASSES, UNKNOWN, classes_of, paint, paint_label_maps

MILLIMETRES = np.eye(4)


def head() -> np.ndarray:
    """Air, a shell outside the brain, cortex, white matter, a ventricle and a lesion, [24, 24, 24]."""
    labels = np.zeros((24, 24, 24), np.int16)
    labels[2:22, 2:22, 2:22] = 507
    labels[4:20, 4:20, 4:20] = 3
    labels[8:16, 8:16, 8:16] = 2
    labels[11:13, 11:13, 11:13] = 4
    labels[9, 9, 9] = 25
    return labels


def test_freesurfers_labels_become_classes() -> None:
    values = np.array([0, 4, 24, 42, 41, 49, 50, 12, 17, 47, 46, 16, 507, 25, 99])
    assert classes_of(values).tolist() == [*range(13), UNKNOWN, UNKNOWN]
    assert len(CLASSES) == 13


def test_a_label_that_freesurfer_does_not_have_is_refused() -> None:
    with pytest.raises(SettingsError, match="-1"):
        classes_of(np.array([-1]))
    with pytest.raises(SettingsError, match="none of FreeSurfer's"):
        paint(np.full((4, 4, 4), 900), MILLIMETRES, seed=0)


def test_a_seed_and_a_name_decide_a_painting() -> None:
    one, same = paint(head(), MILLIMETRES, seed=3, name="a"), paint(head(), MILLIMETRES, seed=3, name="a")
    assert np.array_equal(one.voxels, same.voxels) and one.style == same.style
    assert not np.array_equal(one.voxels, paint(head(), MILLIMETRES, seed=3, name="b").voxels)
    assert not np.array_equal(one.voxels, paint(head(), MILLIMETRES, seed=4, name="a").voxels)


def test_in_a_t1_like_painting_white_matter_is_brighter_than_cortex_and_cortex_than_fluid() -> None:
    found = [p for p in (paint(head(), MILLIMETRES, seed=s) for s in range(12)) if p.style == "T1"]
    assert found
    for painting in found:
        fluid, cortex, white = (painting.voxels[painting.classes == k].mean() for k in (1, 3, 4))
        assert fluid < white and cortex < white


def test_styles_have_their_shares_and_some_heads_are_stripped() -> None:
    paintings = [paint(head()[::2, ::2, ::2], MILLIMETRES, seed=s) for s in range(300)]
    styles = [p.style for p in paintings]
    assert 120 < styles.count("T1") < 180 and 25 < styles.count("T2") < 80
    stripped = sum(12 not in p.classes for p in paintings)
    assert 85 < stripped < 155
    for painting in paintings:
        assert np.isfinite(painting.voxels).all() and painting.voxels.min() >= 0


def test_lesions_are_unknown_and_keep_their_place() -> None:
    painting = paint(head(), MILLIMETRES, seed=0)
    assert painting.classes[9, 9, 9] == UNKNOWN
    assert (painting.classes == UNKNOWN).sum() == 1


def test_painted_heads_are_files_that_prepare_takes_with_their_classes(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(head(), MILLIMETRES), tmp_path / "map.nii.gz")
    heads = paint_label_maps([tmp_path / "map.nii.gz"], tmp_path / "painted", copies=2, seed=1)
    lines = heads.read_text().splitlines()
    assert lines[0] == "path,modality,label:anatomy" and len(lines) == 3
    for line in lines[1:]:
        image, modality, classes = line.split(",")
        assert modality == "MR"
        voxels, numbers = (np.asarray(nibabel.load(heads.parent / n).dataobj) for n in (image, classes))
        assert voxels.shape == numbers.shape == (24, 24, 24)
        assert voxels.min() >= 0 and 200 < voxels.max() < 10_000
        assert set(np.unique(numbers)) <= {*range(13), UNKNOWN}
    report = prepare([str(heads)], tmp_path / "store", load_recipe("native", []))
    assert report.prepared == 2 and not report.refused
    store = open_store(tmp_path / "store")
    assert all(v.labels() == ("anatomy",) and v.modality == "MR" for v in store)
    assert len({v.patient for v in store}) == 1  # both paintings are of one head


def test_painting_goes_on_where_it_was(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(head(), MILLIMETRES), tmp_path / "map.nii.gz")
    heads = paint_label_maps([tmp_path / "map.nii.gz"], tmp_path / "painted", copies=2)
    files = sorted(heads.parent.glob("*.nii.gz"))
    before = {f.name: f.read_bytes() for f in files}
    files[0].unlink()
    paint_label_maps([tmp_path / "map.nii.gz"], tmp_path / "painted", copies=2)
    assert {f.name: f.read_bytes() for f in files} == before


def test_nothing_to_paint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        paint_label_maps([], tmp_path / "painted")
