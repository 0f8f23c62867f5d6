import json
import os
import shutil
import stat

import numpy as np
import pytest

from prepare.heads import same_files, write_head
from wavespark.errors import InputError, SettingsError, StoreError
from wavespark.files import UNFINISHED, read_lines
from wavespark.prepare import Limits, load_recipe, open_store, prepare


def made(store):
    """When each item was published."""
    return {p.name: (p / "record.json").stat().st_mtime_ns for p in (store / "items").iterdir()}


def test_good_inputs_are_stored_and_a_damaged_one_is_named_and_left_out(folder, tmp_path):
    report = prepare(folder, tmp_path / "store")
    assert (report.prepared, report.already_there, report.volumes, report.inputs) == (5, 0, 5, 6)
    assert len(report.refused) == 1
    lines = read_lines(tmp_path / "store" / "quarantine.jsonl", strict=True)
    assert lines == [{k: getattr(report.refused[0], k) for k in ("source_id", "reason", "sentence")}]
    assert (
        len(read_lines(tmp_path / "store" / "manifest.jsonl", strict=True)) == len(open_store(tmp_path / "store")) == 5
    )
    assert open_store(tmp_path / "store").refused == report.refused


def test_running_again_does_nothing_twice(folder, tmp_path):
    store = tmp_path / "store"
    prepare(folder, store)
    before = made(store)
    shutil.copytree(store, tmp_path / "copy")
    again = prepare(folder, store)
    assert (again.prepared, again.already_there, len(again.refused)) == (0, 5, 1)
    assert made(store) == before
    assert same_files(store, tmp_path / "copy")


def test_workers_give_the_same_store_as_none(folder, tmp_path):
    stores = []
    for workers in (0, 1, 3):
        store = tmp_path / f"store{workers}"
        (store / "private").mkdir(parents=True, mode=0o700)
        (store / "private" / "secret").write_text("ab" * 32)  # ids depend on it
        prepare(folder, store, workers=workers)
        stores.append(store)
    assert same_files(stores[0], stores[1]) and same_files(stores[0], stores[2])


def test_added_mended_and_changed_inputs_are_taken_in_and_nothing_else(folder, tmp_path):
    store = tmp_path / "store"
    prepare(folder, store)
    before = made(store)
    content = {v.id: v.content for v in open_store(store)}
    write_head(folder / "broken_T1w.nii.gz", 50)  # mended
    write_head(folder / "sub-77" / "sub-77_T1w.nii.gz", 77)  # added
    write_head(folder / "sub-00" / "anat" / "sub-00_T1w.nii.gz", 60)  # changed
    report = prepare(folder, store)
    assert (report.prepared, report.already_there, len(report.refused), report.volumes) == (3, 4, 0, 7)
    after = made(store)
    changed = {name for name in before if after[name] != before[name]}
    assert len(changed) == 1
    assert open_store(store)[changed.pop()].content not in content.values()
    assert open_store(store).refused == ()
    assert open_store(store).verify() == ()


def test_a_moved_folder_is_the_same_data(folder, tmp_path):
    prepare(folder, tmp_path / "store")
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert prepare(moved, tmp_path / "store").prepared == 0


def test_a_lost_or_damaged_record_is_made_again(folder, tmp_path):
    store = tmp_path / "store"
    prepare(folder, store)
    names = list(made(store))
    shutil.rmtree(store / "items" / names[0])
    (store / "items" / names[1] / "record.json").write_text("{")
    report = prepare(folder, store)
    assert (report.prepared, report.already_there) == (2, 3)
    assert open_store(store).verify() == ()


def test_lists_that_were_damaged_are_made_anew(folder, tmp_path):
    store = tmp_path / "store"
    prepare(folder, store)
    good = {n: (store / n).read_bytes() for n in ("manifest.jsonl", "quarantine.jsonl")}
    (store / "manifest.jsonl").write_bytes(
        b"\x00\n{}\n" + b'{"id":"a","foreground":1e999}\n' + good["manifest.jsonl"][:50]
    )
    (store / "quarantine.jsonl").write_bytes(b"{]\n" + good["quarantine.jsonl"][:-9])
    assert prepare(folder, store).prepared == 0
    assert {n: (store / n).read_bytes() for n in good} == good


def test_what_a_killed_run_left_is_cleaned_up(folder, tmp_path):
    store = tmp_path / "store"
    prepare(folder, store)
    (store / "items" / f"{UNFINISHED}x-1-ab").mkdir()
    (store / "items" / f"{UNFINISHED}x-1-ab" / "voxels.b2nd").write_bytes(b"half")
    prepare(folder, store)
    assert not list(store.rglob(f"{UNFINISHED}*"))


def test_another_recipe_is_refused_and_what_changed_is_named(folder, tmp_path):
    prepare(folder, tmp_path / "store")
    with pytest.raises(StoreError, match=r"spacing_mm is 1\.0 there, 0\.5 now"):
        prepare(folder, tmp_path / "store", load_recipe("head-1mm", ["spacing_mm=0.5"]))
    renamed = load_recipe("head-1mm", ["name=other"])
    assert prepare(folder, tmp_path / "store", renamed).prepared == 0


def test_a_folder_that_holds_something_else_is_not_written_into(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(StoreError, match="not empty"):
        prepare(folder, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_shards_fill_one_store_that_equals_the_one_made_at_once(folder, tmp_path):
    store = tmp_path / "store"
    reports = [prepare(folder, store, shard=(i, 3)) for i in (2, 1, 3)]
    assert sum(r.prepared for r in reports) == 5
    assert sum(len(r.refused) for r in reports) == 1
    whole = tmp_path / "whole"
    (whole / "private").mkdir(parents=True, mode=0o700)
    shutil.copy(store / "private" / "secret", whole / "private" / "secret")
    prepare(folder, whole)
    assert same_files(store, whole)
    for shard in ((0, 3), (4, 3), (1, 0)):
        with pytest.raises(SettingsError, match="shard"):
            prepare(folder, store, shard=shard)


def test_two_inputs_of_one_name_are_refused_and_not_mixed_up(tmp_path):
    write_head(tmp_path / "a" / "x_T1w.nii.gz", 1)
    write_head(tmp_path / "b" / "x_T1w.nii.gz", 2)
    with pytest.raises(SettingsError, match="same name"):
        prepare([tmp_path / "a", tmp_path / "b"], tmp_path / "store")
    assert prepare([tmp_path / "a", tmp_path / "a" / "x_T1w.nii.gz"], tmp_path / "store").prepared == 1


def test_a_source_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError):
        prepare(tmp_path / "nowhere", tmp_path / "store")


@pytest.mark.parametrize(("fault", "reason"), [("crash", "worker_crashed"), ("hang", "time_limit")])
def test_an_input_that_ends_or_stops_its_worker_is_a_line_in_the_quarantine(
    folder, tmp_path, monkeypatch, fault, reason
):
    monkeypatch.setenv("WAVESPARK_FAULTS", f"{fault}@item:sub-02_T1w.nii.gz")
    report = prepare(folder, tmp_path / "store", workers=2, limits=Limits(seconds=8))
    assert report.prepared == 4
    assert report.reasons[reason] == 1
    monkeypatch.delenv("WAVESPARK_FAULTS")
    report = prepare(folder, tmp_path / "store", workers=2)
    assert (report.prepared, report.already_there, len(report.refused)) == (1, 4, 1)


def test_private_files_are_for_the_owner_only_and_paths_are_nowhere_else(folder, tmp_path):
    secret_name = folder / "DOE^JANE" / "DOE_JANE_19700101_T1w.nii.gz"
    write_head(secret_name, 3)
    (folder / "DOE^JANE" / "DOE_JANE_bad.nii.gz").write_bytes(b"DOE JANE")
    store = tmp_path / "store"
    prepare(folder, store)
    for name in ("secret", "sources.jsonl", "lock", "lists.lock"):
        assert stat.S_IMODE((store / "private" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((store / "private").stat().st_mode) == 0o700
    known = {r["id"]: r["path"] for r in read_lines(store / "private" / "sources.jsonl", strict=True)}
    assert str(secret_name) in known.values()
    assert {r.source_id for r in open_store(store).refused} <= set(known)
    for path in store.rglob("*"):
        if path.is_file() and "private" not in path.parts:
            assert b"DOE" not in path.read_bytes()
            assert b"JANE" not in str(path).encode()
    public = b"".join(
        p.read_bytes() for p in (store / "manifest.jsonl", store / "quarantine.jsonl", store / "store.json")
    )
    assert str(folder).encode() not in public


def test_progress_goes_from_nothing_to_all(folder, tmp_path):
    told = []
    prepare(folder, tmp_path / "store", on_progress=lambda done, total, text: told.append((done / total, text)))
    shares = [share for share, _ in told]
    assert shares[0] == 0 and shares[-1] == pytest.approx(1) and shares == sorted(shares)


def test_the_verdict_counts_bad_inputs_only_among_many(folder, tmp_path):
    few = prepare(folder, tmp_path / "store")
    assert few.verdict() is None
    assert "strict" in few.verdict(strict=True)
    many = tmp_path / "many"
    for i in range(18):
        write_head(many / f"{i}_T1w.nii.gz", i)
    for i in range(2):
        (many / f"bad{i}_T1w.nii.gz").write_bytes(b"x")
    report = prepare(many, tmp_path / "store2")
    assert report.inputs == 20
    assert "10.0 %" in report.verdict()
    assert report.verdict(max_bad_fraction=0.1) is None
    none = tmp_path / "none"
    none.mkdir()
    (none / "bad_T1w.nii.gz").write_bytes(b"x")
    assert "none of 1" in prepare(none, tmp_path / "store3").verdict()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_sentence(folder, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="may not be written"):
        prepare(folder, tmp_path / "closed" / "store")


def test_a_time_series_is_complete_only_with_all_its_volumes(folder, tmp_path, monkeypatch):
    from dataclasses import replace

    from wavespark.prepare import work

    read = work.read_source

    def two(source, secret, settings):
        (v,) = read(source, secret, settings)
        return v, replace(v, id=v.id + "-2", voxels=v.voxels + 1)

    monkeypatch.setattr(work, "read_source", two)
    store = tmp_path / "store"
    assert prepare(folder, store).volumes == 10
    assert prepare(folder, store).prepared == 0
    shutil.rmtree(store / "items" / next(n for n in made(store) if n.endswith("-2")))
    assert prepare(folder, store).prepared == 1
    assert json.loads((store / "manifest.jsonl").read_text().splitlines()[0])["of"] == 2
    assert np.array_equal([len(open_store(store))], [10])


def test_a_recipe_can_leave_out_volumes_with_a_note(folder, tmp_path):
    import nibabel as nib

    mask = np.zeros((20, 20, 20), np.int16)
    mask[5:15, 5:15, 5:15] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([4, 4, 4, 1])), folder / "mask.nii.gz")
    assert prepare(folder, tmp_path / "all").volumes == 6
    report = prepare(folder, tmp_path / "some", load_recipe("head-1mm", ['leave_out=["few_distinct_values"]']))
    assert report.volumes == 5
    assert report.reasons["few_distinct_values"] == 1
