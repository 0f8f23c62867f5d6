"""Tables tied to volumes without naming a source, and windows in which voxels, labels and points stay together."""

from pathlib import Path

import numpy as np
import pytest

from downstream.labelled import Small, make_small, write_table
from wavespark.downstream import read_labels
from wavespark.downstream.classify import with_targets
from wavespark.downstream.items import LABELS, place_window, split_labelled, widened, window, with_maps, with_points
from wavespark.downstream.stored import store_points, store_targets
from wavespark.errors import SettingsError, StoreError, VolumeError
from wavespark.prepare import open_store, prepare
from wavespark.samples import synthetic_head, write_dicom
from wavespark.sampling.augment import STRONG
from wavespark.volumes import source_id

BOX = (16, 16, 16)


def test_rows_find_their_volumes_by_relative_path_and_by_id(small: Small, tmp_path: Path) -> None:
    table = small.table
    assert len(table.rows) == 4
    assert table.unmatched == ()
    secret = bytes.fromhex((small.store.path / "private" / "secret").read_text())
    assert table.rows[1].volume == source_id(secret, "sub-01/sub-01_T1w.nii.gz")
    again = read_labels(
        write_table(tmp_path / "ids.csv", [{"id": r.volume, "kind": "x"} for r in table.rows]), small.store
    )
    assert [r.volume for r in again.rows] == [r.volume for r in table.rows]


def test_rows_find_a_dicom_series_by_its_uid(tmp_path: Path) -> None:
    import pydicom

    head = synthetic_head(1, "TOF-MRA", shape=(32, 40, 24), spacing=(4.0, 4.0, 5.0))
    folder = write_dicom(head, tmp_path / "data" / "series")
    uid = str(pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID)
    prepare(tmp_path / "data", tmp_path / "store")
    table = read_labels(
        write_table(tmp_path / "train.csv", [{"SeriesInstanceUID": uid, "a": 1}]), open_store(tmp_path / "store")
    )
    assert table.rows[0].volume == open_store(tmp_path / "store")[0].id


def test_what_matches_nothing_is_named_by_line_and_by_what_the_table_says_there(small: Small, tmp_path: Path) -> None:
    rows = [{"source": "sub-00/sub-00_T2w.nii.gz", "kind": "a"}, {"source": "DOE_JANE.nii.gz", "kind": "b"}]
    table = read_labels(write_table(tmp_path / "l.csv", rows), small.store)
    assert table.remark == "1 of 2 line(s) of l.csv name no volume of the store (line 3)"
    with pytest.raises(SettingsError) as refused:
        read_labels(write_table(tmp_path / "m.csv", rows[1:]), small.store)
    assert "line 2 has 'DOE_JANE.nii.gz' in column 'source'" in str(refused.value)
    with pytest.raises(SettingsError, match=r"n.csv, line 1: there is no column 'source'.*the columns are 'name'"):
        read_labels(write_table(tmp_path / "n.csv", [{"name": "x"}]), small.store)
    with pytest.raises(SettingsError, match=r"o.csv, line 2: this is no UTF-8 CSV"):
        (tmp_path / "o.csv").write_bytes(b"source\n\xff\xfe\n")
        read_labels(tmp_path / "o.csv", small.store)
    with pytest.raises(SettingsError, match="no readable file"):
        read_labels(tmp_path / "p.csv", small.store)


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_of_a_german_excel_is_the_same_table(
    small: Small, tmp_path: Path, separator: str, encoding: str
) -> None:
    wanted = with_points(read_labels(small.points, small.store), small.store)
    lines = small.points.read_text().splitlines()
    german = [line.replace(",", separator).replace("6.0", "6,0") for line in lines]
    (tmp_path / "p.csv").write_text("\r\n".join([*german, separator * 4, ""]), encoding=encoding, newline="")
    items = with_points(read_labels(tmp_path / "p.csv", small.store), small.store)
    assert [i.volume.id for i in items] == [i.volume.id for i in wanted]
    for item, same in zip(items, wanted, strict=True):
        np.testing.assert_array_equal(item.points, same.points)
        np.testing.assert_array_equal(item.reach_mm, same.reach_mm)


def test_numbers_that_can_be_read_in_two_ways_are_refused_with_both(small: Small, tmp_path: Path) -> None:
    path, source = tmp_path / "p.csv", "sub-00/sub-00_T2w.nii.gz"
    path.write_text(f"source;x;y;z\n{source};1,5;2;3\n{source};1.234;2;3\n")
    with pytest.raises(SettingsError, match=r"column 'x' has '1,5' in line 2 and '1.234' in line 3"):
        read_labels(path, small.store)
    path.write_text(f"source,x,y,z\n{source},1,5,2,3\n")
    with pytest.raises(SettingsError, match="line 2: there are 5 cells and 4 columns, beginning with '3'"):
        read_labels(path, small.store)
    path.write_text(f'source,x,y,z\n{source},"1,5",2,3\n')
    with pytest.raises(SettingsError, match="line 2: '1,5' is no number"):
        with_points(read_labels(path, small.store), small.store)


def test_a_scan_is_found_by_any_spelling_that_fits_it_alone(small: Small, tmp_path: Path) -> None:
    first = small.table.rows[0].volume
    data = small.store.path.parent / "data"
    for spelling in (
        str(data / "sub-00" / "sub-00_T2w.nii.gz"),
        "sub-00_T2w.nii.gz",
        "./sub-00/sub-00_T2w.nii.gz",
        "sub-00\\sub-00_T2w.nii.gz",
        "data/sub-00/sub-00_T2w.nii.gz",
    ):
        table = read_labels(write_table(tmp_path / "l.csv", [{"source": spelling, "a": 1}]), small.store)
        assert [r.volume for r in table.rows] == [first], spelling
    for other in ("ub-00_T2w.nii.gz", "sub-01/sub-00_T2w.nii.gz", "/elsewhere/sub-00/sub-00_T2w.nii.gz"):
        with pytest.raises(SettingsError, match="none of the 1 line"):
            read_labels(write_table(tmp_path / "l.csv", [{"source": other, "a": 1}]), small.store)


def test_the_table_that_trained_fits_a_store_that_was_made_of_one_of_its_folders_or_files(tmp_path: Path) -> None:
    made = make_small(tmp_path, patients=2)
    for source in ("data/sub-01", "data/sub-01/sub-01_T1w.nii.gz"):
        prepare(tmp_path / source, tmp_path / "other")
        other = open_store(tmp_path / "other")
        table = read_labels(made.labels, other)
        assert [(r.line, r.volume) for r in table.rows] == [(3, other[0].id)], "line 2 is of another patient"
        import shutil

        shutil.rmtree(tmp_path / "other")


def test_a_name_that_fits_several_scans_is_refused_with_their_number(tmp_path: Path) -> None:
    import nibabel as nib

    for k in range(2):
        (tmp_path / "data" / f"sub-{k}").mkdir(parents=True)
        voxels = np.random.default_rng(k).normal(200, 50, (24, 24, 24)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "data" / f"sub-{k}" / "T1w.nii.gz")
    prepare(tmp_path / "data", tmp_path / "store", "native")
    store = open_store(tmp_path / "store")
    path = write_table(tmp_path / "l.csv", [{"source": "T1w.nii.gz", "a": 1}])
    with pytest.raises(SettingsError, match=r"l.csv, line 2: 'T1w.nii.gz' fits 2 scans"):
        read_labels(path, store)
    rows = read_labels(write_table(path, [{"source": "sub-1/T1w.nii.gz", "a": 1}]), store).rows
    assert len(rows) == 1


def test_messages_quote_the_table_without_moving_the_cursor(small: Small, tmp_path: Path) -> None:
    source = "sub-00/sub-00_T2w.nii.gz"
    path = write_table(tmp_path / "l.csv", [{"source": source, "label": "a\x1b[2J\u202e" + 200 * "b"}])
    with pytest.raises(SettingsError) as refused:
        with_maps(read_labels(path, small.store), small.store, "label")
    assert "l.csv, line 2: there is no such file as 'a\\x1b[2J\\u202ebbb" in str(refused.value)
    assert "\x1b" not in str(refused.value) and "b" * 100 not in str(refused.value)


def test_a_label_file_is_found_by_its_bare_name_and_by_an_absolute_path(small: Small, tmp_path: Path) -> None:
    source, folder = "sub-00/sub-00_T2w.nii.gz", small.labels.parent
    wanted = with_maps(small.table, small.store, "label")[0].read_map()
    for path, label in ((folder / "bare.csv", "0.nii.gz"), (tmp_path / "l.csv", str(folder / "maps" / "0.nii.gz"))):
        table = read_labels(write_table(path, [{"source": source, "label": label}]), small.store)
        (item,) = with_maps(table, small.store, "label")
        np.testing.assert_array_equal(item.read_map(), wanted)
    for k in range(2):
        (tmp_path / str(k)).mkdir()
        (tmp_path / str(k) / "0.nii.gz").write_bytes(b"")
    table = read_labels(write_table(tmp_path / "l.csv", [{"source": source, "label": "0.nii.gz"}]), small.store)
    with pytest.raises(SettingsError, match=r"2 files below .* are called '0.nii.gz'"):
        with_maps(table, small.store, "label")


def test_a_label_map_that_would_unpack_to_more_than_it_declares_is_refused(small: Small, tmp_path: Path) -> None:
    import gzip

    import nibabel as nib

    header = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_bytes()
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header[:-64] + bytes(2**26)))
    rows = [{"source": "sub-00/sub-00_T2w.nii.gz", "label": "bomb.nii.gz"}]
    table = read_labels(write_table(tmp_path / "l.csv", rows), small.store)
    with pytest.raises(VolumeError, match="far more than its header declares"):
        with_maps(table, small.store, "label")
    shape = nib.Nifti1Header()
    shape.set_data_shape((2000, 2000, 2000))
    shape.set_data_dtype(np.uint8)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(shape.binaryblock + bytes(2**20)))
    with pytest.raises(VolumeError, match=r"line 2: 'bomb.nii.gz'"):
        with_maps(table, small.store, "label")


def test_targets_and_marks_of_a_store_stay_the_numbers_that_they_are(small: Small) -> None:
    from dataclasses import replace

    class Known(list):  # type: ignore[type-arg]
        path = small.store.path

    third = 1 / 3
    store = Known(
        replace(v, targets={"age": 60 + third * k, "sick": float(k % 2)}, marks=(("a", (third, 2.0, 3.0)),))
        for k, v in enumerate(small.store)
    )
    items = store_points(store)
    back = np.linalg.inv(store[0].affine)
    exact = (back[:3, :3] @ [third, 2.0, 3.0] + back[:3, 3]).astype(np.float32)
    np.testing.assert_array_equal(items[0].points[0], exact)
    items, names, exclusive = store_targets(store, ["sick"])
    assert (names, exclusive) == (("sick",), False)
    assert [i.targets.tolist() for i in items] == [[0], [1], [0], [1]]  # type: ignore[union-attr]
    items, names, exclusive = store_targets(store, ["age"])
    assert exclusive and len(names) == 4
    assert [int(i.targets.argmax()) for i in items] == [0, 1, 2, 3]  # type: ignore[union-attr]
    with pytest.raises(SettingsError, match="0, 1 or nothing"):
        store_targets(store, ["age", "sick"])


def test_a_store_without_its_key_needs_ids(tmp_path: Path) -> None:
    made = make_small(tmp_path, patients=1)
    (made.store.path / "private" / "secret").unlink()
    with pytest.raises(StoreError, match="column `id`"):
        read_labels(made.labels, made.store)


def test_paths_of_a_table_stay_below_its_folder(small: Small, tmp_path: Path) -> None:
    for path, sentence in (
        ("../secret.nii.gz", "leads out"),
        ("/etc/passwd", "leads out"),
        ("none.nii.gz", "no such file"),
    ):
        table = read_labels(
            write_table(tmp_path / "l.csv", [{"source": "sub-00/sub-00_T2w.nii.gz", "label": path}]), small.store
        )
        with pytest.raises(SettingsError, match=sentence):
            with_maps(table, small.store, "label")
    (tmp_path / "x.nii.gz").write_bytes(b"no image")
    table = read_labels(
        write_table(tmp_path / "l.csv", [{"source": "sub-00/sub-00_T2w.nii.gz", "label": "x.nii.gz"}]), small.store
    )
    with pytest.raises(VolumeError, match="line 2"):
        with_maps(table, small.store, "label")


def test_a_window_holds_the_voxels_labels_and_points_of_its_box(small: Small) -> None:
    item = with_maps(small.table, small.store, "label")[0]
    volume, labels = item.volume, item.read_map()
    assert set(np.unique(labels)) == {0, 1, 2}
    inside = window(item, (4, 6, 2), BOX)
    box = (slice(4, 20), slice(6, 22), slice(2, 18))
    np.testing.assert_array_equal(inside.voxels, volume.read()[(slice(None), *box)])
    np.testing.assert_array_equal(inside.maps[LABELS], labels[box])
    beyond = window(item, (-3, 6, volume.size[2] - 10), BOX)
    assert (beyond.maps[LABELS][:3] == 0).all()
    assert not beyond.maps["foreground"][..., 10:].any()
    np.testing.assert_array_equal(beyond.maps[LABELS][3:, :, :10], labels[:13, 6:22, volume.size[2] - 10 :])
    wide = widened(item, (4, 6, 2), BOX)((1, 0, 2), (0, 3, 0))
    np.testing.assert_array_equal(wide.voxels[:, 1:17, :16, 2:18], inside.voxels)


def test_points_in_millimetres_become_the_voxel_that_they_were_taken_from(small: Small) -> None:
    items = with_points(read_labels(small.points, small.store), small.store)
    assert [len(i.points) for i in items].count(0) == 1
    for item in items:
        values = item.volume.read()[0]
        for point, reach in zip(item.points, item.reach_mm, strict=True):
            assert values[tuple(np.rint(point).astype(int))] == pytest.approx(values.max(), abs=0.02)
            assert reach == 3.0
        if len(item.points):
            start = place_window(item, BOX, np.random.default_rng(0), 1.0)
            assert ((window(item, start, BOX).points >= 0) & (window(item, start, BOX).points < 16)).all()


def test_labels_follow_a_turned_and_bent_window(small: Small) -> None:
    """After strong augmentation without changes of intensity, label 2 still lies on the brightest voxels."""
    from dataclasses import replace

    item = with_maps(small.table, small.store, "label")[1]
    moves = replace(STRONG, share=1.0, low_resolution_mm=0, bias_field=0, gamma=0, scale=0, shift=0, noise=0)
    start = (6, 10, 4)
    scene = window(item, start, BOX)
    made = moves.scene(
        scene,
        modality="MR",
        spacing=(1, 1, 1),
        rng=np.random.Generator(np.random.Philox(1)),
        widen=widened(item, start, BOX),
    )
    assert not np.array_equal(made.voxels, scene.voxels)
    means = [made.voxels[0][made.maps[LABELS] == k].mean() for k in (0, 1, 2)]
    assert means[0] < means[1] < means[2]


def test_windows_lie_where_labels_are_as_often_as_asked(small: Small) -> None:
    item = with_maps(small.table, small.store, "label")[0]
    rng = np.random.default_rng(0)
    for share, least in ((1.0, 0.95), (0.0, 0.0)):
        starts = [place_window(item, (8, 8, 8), rng, share) for _ in range(60)]
        assert all(0 <= s <= n - 8 for start in starts for s, n in zip(start, item.volume.size, strict=True))
        assert np.mean([(window(item, s, (8, 8, 8)).maps[LABELS] > 0).any() for s in starts]) >= least


def test_no_patient_is_on_both_sides_and_no_side_is_empty(small: Small, tmp_path: Path) -> None:
    items = with_maps(small.table, small.store, "label")
    for seed in range(8):
        train, test = split_labelled(items, small.table, 0.25, seed)
        assert 2 <= len(train) <= 3
        assert not {i.volume.patient for i in train} & {i.volume.patient for i in test}
    sources = [f"sub-{k:02d}/sub-{k:02d}_{'T1w' if k % 2 else 'T2w'}.nii.gz" for k in range(4)]
    rows = [{"source": s, "kind": "a", "split": "test" if k == 2 else "train"} for k, s in enumerate(sources)]
    table = read_labels(write_table(tmp_path / "split.csv", rows), small.store)
    train, test = split_labelled(items, table, 0.25, 0)
    assert [i.volume.id for i in test] == [table.rows[2].volume]
    with pytest.raises(SettingsError, match="needs another patient"):
        split_labelled(items[:1], None, 0.5, 0)
    bad = read_labels(write_table(tmp_path / "bad.csv", [{**r, "split": "both"} for r in rows]), small.store)
    with pytest.raises(SettingsError, match="train or test"):
        split_labelled(items, bad, 0.25, 0)


def test_columns_of_zeros_and_ones_are_labels_and_words_are_classes(small: Small, tmp_path: Path) -> None:
    items, names, exclusive = with_targets(small.table, small.store, ["Left A", "Right A"])
    assert (names, exclusive) == (("Left A", "Right A"), False)
    assert [i.targets.tolist() for i in items][:2] == [[0, 1], [1, 0]]  # type: ignore[union-attr]
    _, names, exclusive = with_targets(small.table, small.store, ["kind"])
    assert (names, exclusive) == (("even", "odd"), True)
    with pytest.raises(SettingsError, match="0, 1 or nothing"):
        with_targets(small.table, small.store, ["kind", "Left A"])
    with pytest.raises(SettingsError, match="no column 'nose'"):
        with_targets(small.table, small.store, ["nose"])
    with pytest.raises(SettingsError, match="--labels"):
        store_targets(small.store, ["a"])
