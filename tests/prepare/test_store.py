import json
import multiprocessing
import pickle
import shutil

import numpy as np
import pytest

from prepare.children import total
from prepare.heads import write_head
from wavespark.errors import ShapeError, StoreError
from wavespark.files import read_lines
from wavespark.prepare import load_recipe, open_store, prepare
from wavespark.volumes import read_volumes


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("original")
    for i in range(5):
        write_head(root / "data" / f"{i}_{'ct' if i == 4 else 'T1w'}.nii.gz", i, "CT" if i == 4 else "MR")
    prepare(root / "data", root / "store")
    return root / "store"


@pytest.fixture
def store(original, tmp_path):
    return open_store(shutil.copytree(original, tmp_path / "store"))


def test_volumes_come_by_position_by_id_and_in_order(store):
    assert len(store) == 5
    ids = [v.id for v in store]
    assert ids == sorted(ids) == [store[i].id for i in range(5)]
    assert store[-1].id == store[ids[-1]].id == ids[-1]
    assert [v.id for v in store[1:3]] == ids[1:3]
    assert ids[0] in store and "none" not in store
    for wrong, error in ((5, IndexError), (-6, IndexError), ("none", KeyError)):
        with pytest.raises(error):
            store[wrong]


def test_every_box_equals_that_part_of_the_whole(store):
    rng = np.random.default_rng(0)
    for v in store:
        whole, mask = v.read(), v.read_foreground()
        assert whole.dtype == np.float32 and mask.dtype == np.bool_
        assert whole.shape == v.shape == (v.channels, *mask.shape)
        assert v.channels == (3 if v.modality == "CT" else 1)
        for _ in range(10):
            start = [int(rng.integers(0, n)) for n in v.size]
            size = [int(rng.integers(1, n - s + 1)) for s, n in zip(start, v.size, strict=True)]
            box = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
            assert np.array_equal(v.read(start, size), whole[(slice(None), *box)])
            assert np.array_equal(v.read_foreground(start=start, size=size), mask[box])


@pytest.mark.parametrize(
    ("start", "size"),
    [((-1, 0, 0), (1, 1, 1)), ((0, 0, 0), (1, 0, 1)), ((0, 0, 1), (1, 1, 10**6)), ((10**6, 0, 0), None)],
)
def test_a_box_that_is_not_inside_is_refused(store, start, size):
    with pytest.raises(ShapeError, match="not inside"):
        store[0].read(start, size)


def test_a_crop_reads_only_the_chunks_that_it_touches(store, monkeypatch, tmp_path):
    v = store[0]
    v.read((0, 0, 0), (4, 4, 4))
    path = store.path / "items" / v.id / "voxels.b2nd"
    assert path.stat().st_size > 0
    array = store._items.array(v.id, "voxels.b2nd")
    assert all(c <= 128 for c in array.chunks) and all(b <= 32 for b in array.blocks)


def test_the_affine_leads_from_the_stored_grid_to_the_place_in_the_source(folder, tmp_path):
    prepare(folder, tmp_path / "native", "native")
    store = open_store(tmp_path / "native")
    by_content = {v.content: v for v in read_volumes(folder).volumes}
    for v in store:
        source = by_content[v.content]
        assert np.array_equal(v.read(), source.voxels)
        assert np.array_equal(v.affine, source.affine)
        assert np.array_equal(v.source_affine, source.affine) and v.source_shape == source.voxels.shape[1:]
        assert v.spacing == pytest.approx((4, 4, 4))


def test_the_recipe_travels_with_the_store(store):
    assert store.recipe.fingerprint == load_recipe("head-1mm").fingerprint
    assert store.recipe.name == "head-1mm"
    assert all(r["recipe"] == store.recipe.fingerprint for r in read_lines(store.path / "manifest.jsonl", strict=True))


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_it_can_be_read_in_other_processes_after_it_was_read_here(store, method):
    v = store[0]
    expected = float(v.read().sum())
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=total, args=(store, v, queue))
    process.start()
    assert queue.get(timeout=60) == (expected, expected)
    process.join(60)
    assert process.exitcode == 0
    copy = pickle.loads(pickle.dumps(store))
    assert [v.id for v in copy] == [v.id for v in store]
    assert float(v.read().sum()) == expected


def test_any_flipped_bit_is_found_by_verify(store):
    rng = np.random.default_rng(0)
    assert store.verify() == ()
    for name in ("voxels.b2nd", "foreground.b2nd", "record.json"):
        path = store.path / "items" / store[2].id / name
        good = path.read_bytes()
        for _ in range(5):
            bad = bytearray(good)
            bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            assert [(d.id, d.file) for d in store.verify()] == [(store[2].id, name)]
        path.unlink()
        assert "missing" in store.verify()[0].sentence
        path.write_bytes(good)
    assert store.verify() == ()


def test_a_missing_or_truncated_item_is_named_when_it_is_read(store):
    path = store.path / "items" / store[0].id / "voxels.b2nd"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(StoreError, match=f"{store[0].id} is damaged"):
        store[0].read()
    path.unlink()
    with pytest.raises(StoreError, match=f"{store[0].id} has no voxels"):
        open_store(store.path)[0].read()


def test_no_store_a_newer_one_and_damaged_lists_are_refused(store, tmp_path):
    with pytest.raises(StoreError, match="wavespark prepare"):
        open_store(tmp_path / "nothing")
    manifest = store.path / "manifest.jsonl"
    good = manifest.read_bytes()
    manifest.write_bytes(good[:-20])  # a killed run's last line
    assert len(open_store(store.path)) == 4
    for line in (b"{]", b'{"id":1e999}', b'{"id":-Infinity}', b'{"id":NaN}', b"[]"):
        manifest.write_bytes(line + b"\n" + good)
        with pytest.raises(StoreError, match="line 1 is damaged"):
            open_store(store.path)
    for name in ("../../etc/passwd", "/etc", "a/b", "", "..", 7):
        manifest.write_text(json.dumps({"id": name, "files": {}}) + "\n")
        with pytest.raises(StoreError, match="damaged"):
            open_store(store.path)
    manifest.write_text(json.dumps({"id": "a", "files": {}, "shape": "x"}) + "\n")
    with pytest.raises(StoreError, match="damaged"):
        open_store(store.path)[0]
    document = json.loads((store.path / "store.json").read_text())
    (store.path / "store.json").write_text(json.dumps(document | {"format": 99}))
    with pytest.raises(StoreError, match="format 99"):
        open_store(store.path)
    (store.path / "store.json").write_text("[]")
    with pytest.raises(StoreError, match="damaged"):
        open_store(store.path)


def test_a_manifest_that_lies_about_a_shape_is_refused_when_read(store):
    manifest = store.path / "manifest.jsonl"
    records = read_lines(manifest, strict=True)
    records[0]["shape"] = [1, 10**6, 10**6, 10**6]
    manifest.write_text("".join(json.dumps(r) + "\n" for r in records))
    with pytest.raises(StoreError, match="damaged"):
        open_store(store.path)[0].read((0, 0, 0), (4, 4, 4))
