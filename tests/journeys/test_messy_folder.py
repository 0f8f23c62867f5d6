"""A folder as people have it: heads among atlases, masks, computed maps, other parts of the body, copies and links."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from prepare.heads import head_array, write_head
from prepare.test_fit import chest, ellipsoid, probability, regions, save, t_values
from volumes.test_uneven import THIN_THEN_THICK
from volumes.test_uneven import write as write_slices_at
from wavespark.cli.main import run
from wavespark.prepare import open_store

HEADS = ("a_T1w", "b_T1w", "c_flair", "d_ct", "enlarged_T2w")


@pytest.fixture
def wavespark(capfd):
    """Runs a command line in this process; returns its exit code, standard output and standard error."""

    def call(*words):
        code = 0
        try:
            run([str(word) for word in words])
        except SystemExit as end:
            code = end.code or 0
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return int(code), out, err

    return call


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    """Five heads, and one or more of every kind that pre-training should not see."""
    root = tmp_path_factory.mktemp("messy") / "DOEJANE"
    for seed, name in enumerate(("a_T1w", "b_T1w", "c_flair")):
        write_head(root / "heads" / f"{name}.nii.gz", seed)
    write_head(root / "heads" / "d_ct.nii.gz", 3, "CT")
    save(
        root / "heads" / "enlarged_T2w.nii.gz",
        head_array((30, 34, 28), seed=4).repeat(2, 0).repeat(2, 1).repeat(2, 2),
        np.diag([2.0, 2, 2, 1]),
    )
    others = {
        "atlas": regions(),
        "mask": (regions() > 0).astype(np.float32),
        "tissue": probability(),
        "result": t_values(),
        "x_ADC": head_array(seed=5),
    }
    for name, voxels in others.items():
        save(root / "derived" / f"{name}.nii.gz", voxels)
    save(root / "chest_ct.nii.gz", chest(), np.diag([3.0, 3, 6, 1]))
    save(root / "lizard.nii.gz", ellipsoid((100, 120, 90), (0.7, 0.8, 0.7)), np.diag([0.2, 0.2, 0.2, 1]))
    first = nib.load(root / "heads" / "a_T1w.nii.gz")
    save(root / "copy of a.nii.gz", first.get_fdata().astype(np.float32), first.affine)
    save(root / "series_bold.nii.gz", np.stack([head_array(seed=s) for s in (6, 7, 8)], -1))
    for i in range(30):
        (root / f"link{i}.nii.gz").symlink_to("/nowhere")
    return root


def test_heads_go_in_and_everything_else_is_counted_by_name(wavespark, messy, tmp_path):
    store = tmp_path / "store"
    code, out, err = wavespark("prepare", messy, "--output", store, "--workers", "2")
    assert code == 0, out + err
    assert len(open_store(store)) == len(HEADS)
    for line in (
        "5 input(s) prepared",
        "store holds 5 volume(s), 1 CT, 4 MR, after",
        "left out, label_map: 2 ",
        "left out, probability_map: 1 ",
        "left out, statistics_map: 1 ",
        "left out, derived_map: 1 ",
        "left out, not_a_head: 2 ",
        "left out, duplicate: 1 ",
        "refused, outside_root: 30. ",
    ):
        assert out.count(line) == 1, (line, out)
    assert sum("outside_root" in line for line in out.splitlines()) == 1
    assert "DOEJANE" not in (out + err).replace(str(messy), "")
    page = tmp_path / "store.mosaic.html"
    assert str(page) in out and page.read_text().count("<img ") == len(HEADS)
    assert all(volume.id in page.read_text() for volume in open_store(store))


def test_keep_everything_keeps_what_can_be_read(wavespark, messy, tmp_path):
    code, out, _ = wavespark(
        "prepare", messy, "--output", tmp_path / "store", "--keep-everything", "--workers", "2", "--json"
    )
    document = json.loads(out)
    assert code == 0 and document["left_out"] == 0
    assert document["volumes"] == len(HEADS) + 5 + 2 + 1
    assert Path(document["mosaic"]).is_file()


def test_a_guessed_modality_is_counted_listed_and_decided_by_a_table(wavespark, tmp_path):
    for seed, name in enumerate(("one", "two")):
        write_head(tmp_path / "data" / f"{name}.nii.gz", seed)
    store = tmp_path / "store"
    code, out, _ = wavespark("prepare", tmp_path / "data", "--output", store, "--workers", "1")
    assert code == 0 and "modality guessed from values: 2 volume(s)" in out and "--table" in out
    shown = wavespark("inspect", store, "--guessed")[1]
    assert all(f"guessed    {volume.id}" in shown for volume in open_store(store))
    (tmp_path / "table.csv").write_text("path,modality,contrast\none.nii.gz,MR,T1\ntwo.nii.gz,MR,T2\n")
    code, out, _ = wavespark(
        "prepare", tmp_path / "data", "--output", store, "--table", tmp_path / "table.csv", "--workers", "1"
    )
    assert code == 0 and "modality guessed" not in out
    assert {volume.contrast for volume in open_store(store)} == {"T1", "T2"}


def test_nothing_is_left_of_a_store_when_there_was_nothing_to_prepare(wavespark, tmp_path):
    (tmp_path / "empty").mkdir()
    for source in ("empty", "none"):
        code, _, err = wavespark("prepare", tmp_path / source, "--output", tmp_path / "store")
        assert code == 1 and str(tmp_path / source) in err
        assert not (tmp_path / "store").exists() and not list(tmp_path.glob("*.html"))


def test_a_store_whose_inputs_were_all_refused_takes_the_setting_that_its_refusal_advises(wavespark, tmp_path):
    write_slices_at(tmp_path / "ct", THIN_THEN_THICK)
    store = tmp_path / "store"
    arguments = ("prepare", tmp_path / "ct", "--output", store, "--workers", "1", "--keep-everything")
    code, out, _ = wavespark(*arguments)
    assert code == 1 and "or resample them with reading.allow_uneven=true" in out
    code, out, err = wavespark(*arguments, "reading.allow_uneven=true")
    assert code == 0 and "holds 1 volume(s), 1 CT, after" in out, out + err
    assert not open_store(store).refused
    code, _, err = wavespark(*arguments)  # a volume depends on the recipe now
    assert code == 1 and "was made with another recipe" in err


def test_a_file_in_the_place_of_a_store_is_named_and_stays(wavespark, tmp_path):
    write_head(tmp_path / "data" / "a_T1w.nii.gz", 1)
    (tmp_path / "file").write_bytes(b"voxels")
    for output in (tmp_path / "file", tmp_path / "file" / "store"):
        code, _, err = wavespark("prepare", tmp_path / "data", "--output", output, "--workers", "1")
        assert code == 1 and f"{output} could not be written, because a file is in its place" in err
    assert (tmp_path / "file").read_bytes() == b"voxels"


def test_the_mosaic_that_inspect_writes_is_named(wavespark, tmp_path):
    write_head(tmp_path / "data" / "a_T1w.nii.gz", 1)
    wavespark("prepare", tmp_path / "data", "--output", tmp_path / "store", "--workers", "1")
    code, out, _ = wavespark("inspect", tmp_path / "store", "--mosaic", tmp_path / "m.html")
    assert code == 0 and f"A slice of each volume: {tmp_path / 'm.html'}" in out and (tmp_path / "m.html").is_file()


def test_inspect_names_what_lies_in_a_folder_and_what_a_run_cannot_show(wavespark, tmp_path):
    write_head(tmp_path / "data" / "a_T1w.nii.gz", 1)
    wavespark("prepare", tmp_path / "data", "--output", tmp_path / "all" / "store", "--workers", "1")
    made = tmp_path / "all" / "run"
    made.mkdir()
    (made / "config.toml").write_text("")
    (made / "metrics.jsonl").write_text("")
    (tmp_path / "all" / "out").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "all" / "out" / name).write_text("{}")
    code, _, err = wavespark("inspect", tmp_path / "all")
    assert "it is no store, run or export" in err and "out (an export)" in err
    assert code == 1 and f"{made} (a run)" in err and f"{tmp_path / 'all' / 'store'} (a store)" in err
    code, _, err = wavespark("inspect", made, "--mosaic", tmp_path / "m.html")
    assert code == 2 and "which holds no volumes" in err and f"wavespark report {made}" in err
    assert not (tmp_path / "m.html").exists()
