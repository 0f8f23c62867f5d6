"""Whole runs with other objectives: resumed to the bit, and their lines."""

import pytest
import torch

from engine.small import small_settings, write_volume
from wavespark.checkpoints import read_checkpoint
from wavespark.engine import load_encoder, pretrain
from wavespark.engine.learning.objective import Objective
from wavespark.engine.run.building import build_model, stems_of
from wavespark.engine.run.preflight import checkpoint_bytes, preflight
from wavespark.errors import SettingsError, TrainingStopped
from wavespark.files import read_lines
from wavespark.prepare import open_store, prepare

VIEW = ("objective.second_view=1.0", "objective.second_view_cells=[1, 1, 1]")
RUNS = {
    "contrast": (*VIEW, "objective.contrast=0.1", "objective.contrast_below=5.0"),
    "hard cells": ("mask.guide=hard", "mask.guide_steps=4"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three MR and two CT heads that are long enough for two views."""
    folder = tmp_path_factory.mktemp("long")
    for i, kind in enumerate(("T1w", "T1w", "T2w", "T2w", "ct")):
        path = folder / "data" / f"sub-{i:02d}" / f"sub-{i:02d}_{kind}.nii.gz"
        write_volume(path, i, "CT" if kind == "ct" else "MR", (44, 108, 44))
    prepare(folder / "data", folder / "store")
    return open_store(folder / "store")


def timeless(run, name):
    return [
        {k: v for k, v in line.items() if "seconds" not in k}
        for line in read_lines(run / f"{name}.jsonl", strict=False)
    ]


@pytest.mark.parametrize("words", list(RUNS.values()), ids=list(RUNS))
def test_a_stopped_run_resumes_to_the_bit(store, tmp_path, words):
    settings = small_settings(*words, "run.steps=4")
    pretrain(settings, store, tmp_path / "whole")
    asked = iter(["SIGTERM" if i == 3 else None for i in range(100)])
    with pytest.raises(TrainingStopped):
        pretrain(settings, store, tmp_path / "run", should_stop=lambda: next(asked))
    said = []
    pretrain(settings, store, tmp_path / "run", log=said.append)
    assert said == ["resumed from step 3"]
    one, other = (read_checkpoint(tmp_path / name / "checkpoints" / "step_00000004") for name in ("whole", "run"))
    for left, right in ((one.model, other.model), (one.optimizer, other.optimizer)):
        assert left.keys() == right.keys() and [k for k in left if not torch.equal(left[k], right[k])] == []
    assert one.state["objective"] == other.state["objective"] and one.state["alarms"] == other.state["alarms"]
    for name in ("metrics", "validation"):
        assert timeless(tmp_path / "whole", name) == timeless(tmp_path / "run", name)
    assert load_encoder(tmp_path / "run").cell == (8, 8, 8)
    if words == RUNS["contrast"]:
        assert {"reconstruction", "second_view", "contrast", "contrast_chance"} <= set(
            timeless(tmp_path / "run", "metrics")[0]
        )
        assert 0.9 < timeless(tmp_path / "run", "validation")[0]["second_view"] < 1.2


def test_every_measure_has_the_health_of_each_level_and_the_probe(store, tmp_path):
    pretrain(small_settings("run.steps=2"), store, tmp_path / "run")
    last = read_lines(tmp_path / "run" / "validation.jsonl", strict=False)[-1]
    assert [level["stride"] for level in last["levels"]] == [2, 4, 8]
    for level in last["levels"]:
        assert level["feature_std"] > 0 and level["effective_rank"] > 1 and 0 < level["alignment"] < 4
    assert last["effective_rank"] == last["levels"][-1]["effective_rank"]
    found = last["probe"]
    assert (found["label"], found["volumes"], found["chance"]) == ("contrast", 4, 0.5)
    for name in ("knn", "linear"):
        assert 0 <= found[name]["low"] <= found[name]["value"] <= found[name]["high"] <= 1


def test_a_probe_can_be_left_out_and_an_unknown_label_is_refused(store, tmp_path):
    pretrain(small_settings("run.steps=1", "health.probe=''"), store, tmp_path / "run")
    assert "probe" not in read_lines(tmp_path / "run" / "validation.jsonl", strict=False)[-1]
    with pytest.raises(SettingsError, match="no label of the manifest"):
        pretrain(small_settings("health.probe=colour"), store, tmp_path / "other")


def test_the_room_for_a_checkpoint_is_what_it_takes_with_a_slow_copy_and_projectors(store, tmp_path):
    settings = small_settings(*VIEW, "objective.contrast=0.1", "run.steps=1", "health.probe=''")
    model = build_model(settings, stems_of(store))
    said = checkpoint_bytes(Objective(settings, model, settings.mask_plan(model.encoder.cell)))
    pretrain(settings, store, tmp_path / "run")
    (newest,) = (tmp_path / "run" / "checkpoints").iterdir()
    taken = sum(file.stat().st_size for file in newest.rglob("*.safetensors"))
    assert said <= taken <= 1.2 * said  # the names of the tensors come on top


def test_a_run_that_an_alarm_stopped_goes_on_with_another_alarm(store, tmp_path):
    settings = small_settings("run.steps=3", "run.checkpoint_every=2", "health.probe=''")
    asked = iter(["SIGTERM" if i == 2 else None for i in range(100)])
    with pytest.raises(TrainingStopped):
        pretrain(settings, store, tmp_path / "run", should_stop=lambda: next(asked))
    again = small_settings("run.steps=3", "health.collapse=warn", "health.patience=7", "health.probe=modality")
    assert pretrain(again, store, tmp_path / "run").steps == 3


def test_the_second_view_is_told_before_the_run_in_mm(store, tmp_path):
    lines = preflight(small_settings(*VIEW), store, tmp_path)
    assert [line for line in lines if line.startswith("views")] == [
        "views   each voxel of a crop joins 2 x 2 x 2 of the store; the second view is 16 x 16 x 16 of them (16 x 16 x 16 mm) where the first hides"
    ]
    assert not [line for line in preflight(small_settings(), store, tmp_path) if line.startswith("views")]
