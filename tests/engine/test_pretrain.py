"""Runs: resumed to the bit, counted exactly, one at a time, stopped when they go wrong."""

import json
import shutil
import subprocess
import sys
import tomllib

import pytest
import torch

from engine.small import make_store, small_settings
from wavespark.checkpoints import checkpoint_folders, read_checkpoint
from wavespark.config import to_toml
from wavespark.engine import begin_fresh, export_checkpoint, load_encoder, pretrain
from wavespark.engine.learning.optimizer import rate_at
from wavespark.errors import CheckpointError, MaskError, SettingsError, StoreError, TrainingStopped, WavesparkError
from wavespark.files import read_lines
from wavespark.masking import BlockMasking

WITHOUT_TIME = ("seconds", "load_seconds")


def at_step(step):
    """Asks to stop after a step."""
    asked = iter(["SIGTERM" if i == step else None for i in range(100)])
    return lambda: next(asked)


def stopped(settings, store, run, step, **more):
    with pytest.raises(TrainingStopped, match="run the same command again") as caught:
        pretrain(settings, store, run, should_stop=at_step(step), **more)
    assert caught.value.exit_code == 75


def weights(run, step=6):
    return read_checkpoint(run / "checkpoints" / f"step_{step:08d}")


def lines(run, name="metrics"):
    return [
        {k: v for k, v in line.items() if k not in WITHOUT_TIME}
        for line in read_lines(run / f"{name}.jsonl", strict=False)
    ]


def assert_same_run(a, b):
    """Weights and optimiser to the bit; the same lines but for times."""
    one, two = weights(a), weights(b)
    for left, right in ((one.model, two.model), (one.optimizer, two.optimizer)):
        assert left.keys() == right.keys()
        assert [k for k in left if not torch.equal(left[k], right[k])] == []
    for name in ("metrics", "validation"):
        assert lines(a, name) == lines(b, name)


@pytest.fixture(scope="module")
def whole(mixed_store, tmp_path_factory):
    """The run that never stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(small_settings(), mixed_store, run)
    return run


@pytest.mark.parametrize("step", [0, 1, 3, 5])
def test_a_stopped_and_resumed_run_is_bitwise_the_run_that_never_stopped(whole, mixed_store, tmp_path, step):
    said = []
    stopped(small_settings(), mixed_store, tmp_path / "run", step)
    summary = pretrain(small_settings(), mixed_store, tmp_path / "run", log=said.append)
    assert said == [f"resumed from step {step}"]
    assert (summary.resumed_from, summary.steps) == ([step], 6)
    assert_same_run(whole, tmp_path / "run")


def test_a_run_that_lost_steps_since_its_checkpoint_does_them_again_to_the_bit(whole, mixed_store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints" / "step_00000006")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss": 0.1')  # a line that a kill has cut off
    pretrain(small_settings(), mixed_store, run)
    assert_same_run(whole, run)


def test_a_run_killed_before_its_first_checkpoint_starts_again_and_counts_every_step_once(whole, mixed_store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints")
    pretrain(small_settings(), mixed_store, run)
    assert_same_run(whole, run)
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines(run, "validation")] == [0, 3, 6]


@pytest.mark.parametrize("workers", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_weights_do_not_depend_on_workers_nor_does_resuming_with_others(whole, mixed_store, tmp_path, workers):
    stopped(small_settings(f"data.workers={workers}"), mixed_store, tmp_path / "run", 3)
    pretrain(small_settings("run.checkpoint_every=5"), mixed_store, tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


def test_the_weights_depend_on_the_seed_and_not_on_what_the_process_drew_before(mr_store, tmp_path):
    settings = small_settings("model.drop_path=0.5", "run.steps=3")
    for name, words in (("a", settings), ("b", settings), ("c", small_settings("run.steps=3", "run.seed=4"))):
        torch.rand(len(name) + ord(name))
        pretrain(words, mr_store, tmp_path / name)
    a, b, c = (weights(tmp_path / name, 3).model for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_a_run_with_stochastic_depth_resumes_to_the_bit(mr_store, tmp_path):
    settings = small_settings("model.drop_path=0.5")
    pretrain(settings, mr_store, tmp_path / "whole")
    stopped(settings, mr_store, tmp_path / "run", 3)
    torch.rand(5)
    pretrain(settings, mr_store, tmp_path / "run")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_training_draws_nothing_from_the_global_generator(mr_store, tmp_path):
    states = []
    settings = small_settings("model.drop_path=0.5", "run.steps=3")
    pretrain(settings, mr_store, tmp_path / "run", on_progress=lambda *_: states.append(torch.get_rng_state()))
    assert len(states) == 4
    assert all(torch.equal(state, states[0]) for state in states)


def test_metrics_hold_each_step_once_with_exact_mask_shares(whole):
    metrics = lines(whole)
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    cells = 3**3
    assert {(line["visible_share"], line["hidden_share"]) for line in metrics} == {(11 / cells, 16 / cells)}
    assert all(line["loss"] > 0 and not line["skipped"] for line in metrics)


def test_the_normalised_loss_starts_at_about_one(whole):
    first = lines(whole, "validation")[0]
    assert first["step"] == 0
    assert 0.95 < first["normalised_loss"] < 1.15
    assert set(first["per_modality"]) == {"MR", "CT"}


def test_other_settings_on_the_same_folder_are_refused_naming_what_changed(whole, mixed_store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    with pytest.raises(SettingsError) as caught:
        pretrain(small_settings("data.batch=1", "mask.ratio=0.75"), mixed_store, run)
    assert "data.batch was 2, now 1" in str(caught.value)
    assert "mask.ratio was 0.6, now 0.75" in str(caught.value)
    assert "--fresh" in str(caught.value)
    pretrain(small_settings("run.keep=3", "run.checkpoint_every=1", "data.workers=1"), mixed_store, run)


def test_a_finished_run_can_be_prolonged_and_follows_the_longer_schedule(whole, mixed_store, tmp_path):
    run, said = tmp_path / "run", []
    shutil.copytree(whole, run)
    longer = small_settings("run.steps=9")
    summary = pretrain(longer, mixed_store, run, log=said.append)
    assert (summary.steps, summary.resumed_from) == (9, [6])
    assert said[0] == "resumed from step 6" and "run.steps grew from 6 to 9" in said[1]
    metrics = lines(run)
    assert [line["step"] for line in metrics] == list(range(1, 10)) and metrics[:6] == lines(whole)
    rates = [rate_at(step, small_settings()) for step in range(1, 7)] + [rate_at(s, longer) for s in (7, 8, 9)]
    assert [line["learning_rate"] for line in metrics] == pytest.approx(rates, rel=1e-12)
    assert [line["step"] for line in lines(run, "validation")] == [0, 3, 6, 9]
    assert tomllib.loads((run / "config.toml").read_text())["run"]["steps"] == 9
    assert read_checkpoint(checkpoint_folders(run / "checkpoints")[0]).step == 9


def test_a_prolonged_run_that_is_stopped_resumes_to_the_bit(whole, mixed_store, tmp_path):
    longer = small_settings("run.steps=9")
    for name in ("a", "b"):
        shutil.copytree(whole, tmp_path / name)
    pretrain(longer, mixed_store, tmp_path / "a")
    stopped(longer, mixed_store, tmp_path / "b", 1)
    pretrain(longer, mixed_store, tmp_path / "b")
    one, other = weights(tmp_path / "a", 9), weights(tmp_path / "b", 9)
    assert [k for k in one.model if not torch.equal(one.model[k], other.model[k])] == []
    assert lines(tmp_path / "a") == lines(tmp_path / "b")


def test_a_run_cannot_be_shortened_nor_prolonged_with_other_settings(whole, mixed_store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    with pytest.raises(SettingsError, match=r"run\.steps was 6, now 5 \(it may only grow\)"):
        pretrain(small_settings("run.steps=5"), mixed_store, run)
    with pytest.raises(SettingsError, match=r"optimizer\.learning_rate was 0\.002, now 0\.001\. Use"):
        pretrain(small_settings("run.steps=9", "optimizer.learning_rate=1e-3"), mixed_store, run)
    with pytest.raises(SettingsError, match=r"data\.augmentation\.zoom was 0\.0, now 0\.1"):
        pretrain(small_settings("data.augmentation.zoom=0.1"), mixed_store, run)


def test_a_run_of_an_earlier_version_with_flat_augmentation_keys_resumes(whole, mixed_store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    document = tomllib.loads((run / "config.toml").read_text())
    moved = document["data"].pop("augmentation")
    earlier = {"scale": "intensity_scale", "shift": "intensity_shift", "share": "augment_share"}
    document["data"] |= {earlier.get(name, name): value for name, value in moved.items()}
    (run / "config.toml").write_text(to_toml(document))
    with pytest.raises(SettingsError, match=r"data\.augmentation\.flip was 0\.5, now 0\.25"):
        pretrain(small_settings("data.augmentation.flip=0.25"), mixed_store, run)
    pretrain(small_settings(), mixed_store, run)
    assert_same_run(whole, run)


def test_a_store_that_changed_under_a_run_is_refused(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    other = make_store(tmp_path / "other", ("MR", "MR", "CT", "MR"))
    with pytest.raises(CheckpointError, match="volumes"):
        pretrain(small_settings(), other, run)
    ct_only = make_store(tmp_path / "ct", ("CT",))
    with pytest.raises(CheckpointError, match="store"):
        pretrain(small_settings(), ct_only, run)


def test_a_finished_run_does_nothing_again_and_says_so(whole, mixed_store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    said = []
    assert pretrain(small_settings(), mixed_store, run, log=said.append).steps == 6
    assert said == ["resumed from step 6"]
    assert_same_run(whole, run)


def test_only_the_newest_checkpoints_are_kept(whole):
    assert [f.name for f in checkpoint_folders(whole / "checkpoints")] == ["step_00000006", "step_00000004"]
    assert not [p for p in whole.rglob("*") if p.name.startswith(".unfinished")]


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_gives_the_same_run(whole, mixed_store, tmp_path):
    run, said = tmp_path / "run", []
    shutil.copytree(whole, run)
    file = run / "checkpoints/step_00000006/optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    pretrain(small_settings(), mixed_store, run, log=said.append)
    assert any("step_00000006/optimizer.safetensors" in text for text in said)
    assert "resumed from step 4" in said
    assert_same_run(whole, run)


def test_all_checkpoints_damaged_is_a_refusal_and_never_a_fresh_start(whole, mixed_store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for file in (run / "checkpoints").glob("*/state.json"):
        file.write_bytes(file.read_bytes()[:-7])
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="all 2 checkpoint"):
        pretrain(small_settings(), mixed_store, run)
    assert (run / "metrics.jsonl").read_bytes() == before


HOLDER = """
import sys, time
from pathlib import Path
from wavespark.engine.run.folder import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A run's folder in the hands of another process."""
    run = tmp_path_factory.mktemp("held")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    yield run, holder.pid
    holder.communicate("", timeout=300)


def test_a_second_process_on_one_folder_is_refused_with_the_first_ones_number(held, mr_store):
    run, pid = held
    with pytest.raises(CheckpointError, match=f"process {pid} on "):
        pretrain(small_settings(), mr_store, run)


def test_a_fresh_start_never_moves_a_folder_away_under_a_running_process(held):
    run, pid = held
    (run / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(CheckpointError, match=f"process {pid} on "):
        begin_fresh(run)
    assert (run / "metrics.jsonl").exists()


def test_a_fresh_start_moves_the_earlier_run_aside_and_deletes_nothing(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("{}\n")
    begin_fresh(run)
    begin_fresh(tmp_path / "deep" / "run")
    (aside,) = tmp_path.glob("run.before-*")
    assert (aside / "metrics.jsonl").read_text() == "{}\n"
    assert not (run / "metrics.jsonl").exists()


def test_a_folder_that_cannot_be_a_run_is_refused_in_words(mr_store, tmp_path):
    (tmp_path / "file").write_text("")
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(WavesparkError, match="file"):
            pretrain(small_settings(), mr_store, run)
        with pytest.raises(WavesparkError, match="file"):
            begin_fresh(run)


def test_a_mask_share_that_is_wrong_is_an_error(mr_store, tmp_path, monkeypatch):
    right = BlockMasking.draw

    def one_cell_less(self, *arguments):
        masks = right(self, *arguments)
        masks.visible[0].view(-1)[int(masks.hidden[0].view(-1).int().argmax())] = True
        masks.hidden[0].view(-1)[int(masks.hidden[0].view(-1).int().argmax())] = False
        return masks

    monkeypatch.setattr(BlockMasking, "draw", one_cell_less)
    with pytest.raises(MaskError, match="sample 0 hides 15 of 27"):
        pretrain(small_settings(), mr_store, tmp_path / "run")


@pytest.fixture
def poison(monkeypatch):
    """Makes the loss of chosen steps NaN."""
    return lambda steps: monkeypatch.setenv("WAVESPARK_FAULTS", ",".join(f"nan@step:{s}" for s in steps))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_five_non_finite_losses_in_a_row_stop_with_exit_code_4_and_the_last_good_state(
    mr_store, tmp_path, poison, precision
):
    run, said = tmp_path / "run", []
    poison({1, *range(3, 20)})
    settings = small_settings("run.steps=9", "data.crop=[16, 16, 16]", f"run.precision={precision}")
    with pytest.raises(TrainingStopped, match="5 steps in a row, up to step 7") as caught:
        pretrain(settings, mr_store, run, log=said.append)
    assert caught.value.exit_code == 4
    assert len([text for text in said if "not finite" in text]) == 6
    assert [line["skipped"] for line in lines(run)][:6] == [True, False, True, True, True, True]
    kept = weights(run, 6).model
    assert all(torch.isfinite(t).all() for t in kept.values())
    poison(set())
    assert pretrain(settings, mr_store, run).skipped_steps == 5


def test_the_first_non_finite_loss_stops_where_that_is_asked_for(mr_store, tmp_path, poison):
    poison({3})
    settings = small_settings("run.steps=4", "run.checkpoint_every=1", "health.non_finite=stop")
    with pytest.raises(TrainingStopped, match="not finite in step 3 ") as caught:
        pretrain(settings, mr_store, tmp_path / "run")
    assert caught.value.exit_code == 4
    assert all(torch.isfinite(t).all() for t in weights(tmp_path / "run", 2).model.values())


def test_a_skipped_step_changes_no_weight(mr_store, tmp_path, poison):
    poison({2})
    summary = pretrain(
        small_settings("run.steps=3", "run.checkpoint_every=1", "run.keep=3"), mr_store, tmp_path / "run"
    )
    one, two, three = (weights(tmp_path / "run", step).model for step in (1, 2, 3))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not all(torch.equal(two[k], three[k]) for k in one)
    assert summary.skipped_steps == 1


def test_the_export_of_a_run_gives_the_features_of_its_model_to_the_bit(whole, tmp_path):
    encoder = load_encoder(whole / "exports" / "encoder")
    own = small_settings().encoder(encoder.stem_channels).eval()
    prefix = "encoder."
    own.load_state_dict({k.removeprefix(prefix): t for k, t in weights(whole).model.items() if k.startswith(prefix)})
    crop = torch.randn(2, 3, 20, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for a, b in zip(encoder(crop, modality="CT"), own(crop, modality="CT"), strict=True):
            assert (a - b).abs().max() == 0.0
    assert encoder.preparation["settings"]["spacing_mm"] == 1.0
    assert not encoder.training


def test_an_export_holds_the_step_and_the_measure_that_belong_to_its_weights(whole, tmp_path):
    assert export_checkpoint(whole, tmp_path / "out", "wavespark") == 6
    told = json.loads((tmp_path / "out" / "config.json").read_text())["provenance"]
    assert told["steps"] == 6
    assert told["normalised_loss"] == lines(whole, "validation")[-1]["normalised_loss"]


def test_an_export_of_a_damaged_newest_checkpoint_says_that_it_took_the_one_before(whole, tmp_path):
    run, said = tmp_path / "run", []
    shutil.copytree(whole, run)
    (run / "checkpoints/step_00000006/model.safetensors").write_bytes(b"")
    assert export_checkpoint(run, tmp_path / "out", "wavespark", log=said.append) == 4
    assert any("step_00000006/model.safetensors" in text for text in said)


def test_a_run_folder_without_a_checkpoint_cannot_be_exported(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        export_checkpoint(tmp_path, tmp_path / "out", "wavespark")


def test_a_store_without_volumes_or_without_room_to_hold_out_is_refused(tmp_path):
    store = make_store(tmp_path, ("MR",))
    with pytest.raises(StoreError, match="held out"):
        pretrain(small_settings("data.crop=[32, 48, 32]"), store, tmp_path / "run")


def test_settings_that_no_model_can_have_are_refused_before_anything_is_written(mr_store, tmp_path):
    for word in (
        "decoder.widths=[33, 24]",
        "decoder.heads=[8, 2]",
        "decoder.heads=[0, 2]",
        "optimizer.betas=[0.9, 1.0]",
    ):
        with pytest.raises(SettingsError):
            small_settings(word)
    with pytest.raises(SettingsError, match="XY"):
        pretrain(small_settings("data.modality_weights={XY=1.0}"), mr_store, tmp_path / "run")
