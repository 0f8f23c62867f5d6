"""One update: in parts, with layers of their own rate, skipped on the device, measured late; faults on request."""

import json

import pytest
import torch

from engine.small import small_settings
from wavespark.checkpoints import checkpoint_folders, read_checkpoint
from wavespark.engine import export_checkpoint, load_encoder, pretrain
from wavespark.engine.encoders.initialise import initialise
from wavespark.engine.learning.optimizer import layers_of, make_optimizer, restore_optimizer
from wavespark.engine.machine.faults import Faults
from wavespark.engine.run.building import build_model, stems_of
from wavespark.errors import CheckpointError, SettingsError, TrainingStopped
from wavespark.files import read_lines

CROP = "data.crop=[16, 16, 16]"


def losses(run):
    return [line["loss"] for line in read_lines(run / "metrics.jsonl", strict=False)]


def weights(run):
    return read_checkpoint(checkpoint_folders(run / "checkpoints")[0]).model


def test_a_run_in_parts_has_the_losses_of_the_run_at_once(mr_store, tmp_path):
    """Whole runs; the gradients themselves are compared in test_gradients.py."""
    once, parts = (small_settings("data.batch=4", "run.steps=2", CROP, f"run.accumulate={k}") for k in (1, 4))
    pretrain(once, mr_store, tmp_path / "once")
    pretrain(parts, mr_store, tmp_path / "parts")
    # Parts are weighted alike, a batch at once by its scored voxels, which differ where a crop reaches out of the head.
    assert losses(tmp_path / "once") == pytest.approx(losses(tmp_path / "parts"), rel=0.02)


def test_a_batch_that_cannot_be_cut_is_refused_with_the_numbers():
    with pytest.raises(SettingsError, match=r"data\.batch 4 cannot be cut into run\.accumulate 3"):
        small_settings("data.batch=4", "run.accumulate=3")


def test_weight_decay_touches_matrices_only_and_rates_fall_layer_by_layer(mr_store):
    settings = small_settings("optimizer.layer_decay=0.5", "optimizer.learning_rate=1.0")
    model = build_model(settings, stems_of(mr_store))
    optimizer = make_optimizer(model, settings.optimizer)
    named = {id(p): name for name, p in model.named_parameters()}
    found = {named[id(p)]: (g["weight_decay"], g["lr_scale"]) for g in optimizer.param_groups for p in g["params"]}
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all((decay > 0) == (p.ndim > 1) for (decay, _), p in ((found[n], p) for n, p in model.named_parameters()))
    scale = {name: s for name, (_, s) in found.items()}
    stem, last = scale["encoder.stems.MR.weight"], scale["encoder.stages.2.1.norm1.weight"]
    blocks = [scale[f"encoder.stages.{i}.{j}.norm1.weight"] for i, j in ((0, 0), (1, 0), (2, 0), (2, 1))]
    assert [b / a for a, b in zip([stem, *blocks], blocks, strict=False)] == [2.0] * 4
    assert (last, scale["decoder.norm.weight"]) == (0.5, 1.0)
    assert scale["encoder.norms.2.weight"] == last
    assert scale["encoder.merges.0.project.weight"] == blocks[1]


def test_without_layer_decay_every_layer_has_one_rate(mr_store):
    model = build_model(small_settings(), stems_of(mr_store))
    assert {g["lr_scale"] for g in make_optimizer(model, small_settings().optimizer).param_groups} == {1.0}
    assert max(layers_of(model).values()) == 5


def test_moments_that_fit_no_parameter_are_refused_by_name(mr_store):
    model = build_model(small_settings(), stems_of(mr_store))
    optimizer = make_optimizer(model, small_settings().optimizer)
    name, p = next(iter(model.named_parameters()))
    good = {f"{name}.step": torch.ones(()), f"{name}.exp_avg": p * 0, f"{name}.exp_avg_sq": p * 0}
    restore_optimizer(model, optimizer, good)
    assert len(optimizer.state) == 1
    for wrong in ({"../../x.exp_avg": p * 0}, {f"{name}.exp_avg": torch.zeros(1)}):
        with pytest.raises(CheckpointError, match="another model"):
            restore_optimizer(model, optimizer, good | wrong)


def test_an_optimiser_that_skips_on_the_device_makes_the_same_run(mr_store, tmp_path, monkeypatch):
    """As on an accelerator: nothing waits for the loss, lines are written a step later, a poisoned step changes no weight."""
    settings = small_settings("run.steps=5", "run.checkpoint_every=5", CROP)
    monkeypatch.setenv("WAVESPARK_FAULTS", "nan@step:3")
    said = []
    for name, fused in (("plain", False), ("fused", True)):

        def made(model, chosen, fused=fused):
            optimizer = make_optimizer(model, chosen)
            if fused:
                groups = [
                    {k: v for k, v in g.items() if k in ("params", "weight_decay", "lr_scale")}
                    for g in optimizer.param_groups
                ]
                optimizer = torch.optim.AdamW(groups, lr=chosen.learning_rate, betas=chosen.betas, fused=True)
            return optimizer

        monkeypatch.setattr("wavespark.engine.run.components.make_optimizer", made)
        summary = pretrain(settings, mr_store, tmp_path / name, log=said.append)
        assert summary.skipped_steps == 1
    plain, late = losses(tmp_path / "plain"), losses(tmp_path / "fused")
    assert plain[2] is None and late[2] is None
    assert plain[:2] + plain[3:] == pytest.approx(late[:2] + late[3:], rel=1e-4)
    lines = read_lines(tmp_path / "fused" / "metrics.jsonl", strict=False)
    assert [(line["step"], line["skipped"]) for line in lines] == [
        (1, False),
        (2, False),
        (3, True),
        (4, False),
        (5, False),
    ]
    assert said.count("step 3: loss or gradient is not finite, no update was made") == 2


@pytest.mark.parametrize("word", ["nan@step", "nan@step:x", "burn@step:1", "crash@step:2", "nan"])
def test_faults_that_cannot_be_read_are_refused(word):
    with pytest.raises(SettingsError, match="WAVESPARK_FAULTS"):
        Faults.asked_for({"WAVESPARK_FAULTS": word})


def test_faults_are_off_unless_asked_for():
    assert Faults.asked_for({}) == Faults()
    found = Faults.asked_for({"WAVESPARK_FAULTS": "nan@step:12, oom@step:5,crash@item:a:b.nii"})
    assert found == Faults(nan=frozenset({12}), oom=frozenset({5}))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: x")]
)
def test_out_of_memory_names_settings_peak_and_the_next_smaller_setting(mr_store, tmp_path, monkeypatch, error):
    settings = small_settings(CROP, "data.batch=6", "run.steps=6")

    def no_memory(self, batch, step, rate):
        if step == 3:
            raise error
        return right(self, batch, step, rate)

    from wavespark.engine.learning.update import Updater

    right = Updater.__call__
    monkeypatch.setattr(Updater, "__call__", no_memory)
    with pytest.raises(TrainingStopped) as caught:
        pretrain(settings, mr_store, tmp_path / "run")
    assert caught.value.exit_code == 5
    for text in ("out of memory on cpu", "waveformer_tiny", "6 crop(s) of 16 x 16 x 16", "GiB", "run.accumulate=2"):
        assert text in str(caught.value)
    monkeypatch.undo()
    again = small_settings(CROP, "data.batch=6", "run.steps=6", "run.accumulate=2")
    assert pretrain(again, mr_store, tmp_path / "run").resumed_from == [2]


def test_gradient_checkpointing_and_channels_last_change_no_loss_beyond_rounding(mr_store, tmp_path):
    words = (CROP, "run.steps=3", "model.drop_path=0.3")
    pretrain(small_settings(*words), mr_store, tmp_path / "plain")
    for word in ("run.gradient_checkpointing=true", "run.channels_last=true", "run.deterministic=true"):
        pretrain(small_settings(*words, word), mr_store, tmp_path / word)
        assert losses(tmp_path / word) == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    assert not torch.are_deterministic_algorithms_enabled()


def test_saving_in_the_background_and_in_the_foreground_give_the_same_checkpoints(mr_store, tmp_path):
    for name, word in (("behind", "true"), ("before", "false")):
        settings = small_settings(CROP, "run.checkpoint_every=1", "run.keep=6", f"run.save_in_background={word}")
        pretrain(settings, mr_store, tmp_path / name)
    a, b = (sorted((tmp_path / name / "checkpoints").iterdir()) for name in ("behind", "before"))
    assert [f.name for f in a] == [f.name for f in b] and len(a) == 6
    for one, two in zip(a, b, strict=True):
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert (one / file).read_bytes() == (two / file).read_bytes()


def test_a_run_begins_with_the_weights_of_another_and_every_key_is_accounted_for(mr_store, mixed_store, tmp_path):
    words = (CROP, "run.steps=1", "run.checkpoint_every=1")
    pretrain(small_settings(*words), mr_store, tmp_path / "first")
    start = load_encoder(tmp_path / "first").state_dict()
    said = []
    init = f"model.init={tmp_path / 'first'}"
    pretrain(
        small_settings(*words, init, "optimizer.learning_rate=1e-12"), mr_store, tmp_path / "second", log=said.append
    )
    assert said[0].startswith(f"begins with {len(start)} of {len(start)} weights")
    after = load_encoder(tmp_path / "second").state_dict()
    assert all(torch.allclose(start[k], after[k], atol=1e-7) for k in start)
    state = json.loads((tmp_path / "second/checkpoints/step_00000001/state.json").read_text())
    assert str(tmp_path) not in json.dumps(state), "a path of this machine travels"
    with pytest.raises(CheckpointError, match=r"stems\.CT\.weight"):
        pretrain(small_settings(*words, init), mixed_store, tmp_path / "third")
    pretrain(small_settings(*words, init, "model.init_partial=true"), mixed_store, tmp_path / "third", log=said.append)
    assert "2 not in the file: stems.CT.weight, stems.CT.bias" in said[-1]
    with pytest.raises(CheckpointError, match="no export"):
        pretrain(small_settings(*words, f"model.init={tmp_path}"), mr_store, tmp_path / "fourth")


@pytest.mark.parametrize("source", ["run", "exports/encoder", "encoder.safetensors"])
def test_a_segmentation_decoder_that_travels_with_an_encoder_does_not_keep_a_run_from_beginning_with_it(
    mr_store, tmp_path, source
):
    words = (CROP, "run.steps=1", "run.held_out_crops=1", "model.name=resenc_tiny", "decoder.kind=unet")
    pretrain(small_settings(*words), mr_store, tmp_path / "run")
    export_checkpoint(tmp_path / "run", tmp_path / "encoder.safetensors", "safetensors")
    encoder = build_model(small_settings(*words), stems_of(mr_store)).encoder
    place = tmp_path / "run" / source if source.startswith("exports") else tmp_path / source
    count = len(encoder.state_dict())
    assert (
        initialise(encoder, str(place), partial=False)
        == f"begins with {count} of {count} weights of the encoder from {place}"
    )


def test_a_run_on_a_store_that_grew_holds_out_whom_the_earlier_run_held_out(tmp_path):
    from dataclasses import replace

    from engine.small import write_volume
    from wavespark.prepare import open_store, prepare
    from wavespark.sampling import split_store

    for i in range(6):
        write_volume(tmp_path / "data" / f"sub-{i:02d}" / f"sub-{i:02d}_T1w.nii.gz", i)
    prepare(tmp_path / "data", tmp_path / "store")
    words = (CROP, "run.steps=1", "data.held_out_fraction=0.4")
    pretrain(small_settings(*words), open_store(tmp_path / "store"), tmp_path / "first")
    sides = json.loads((tmp_path / "first/split.json").read_text())
    assert len(sides) == 6 and 0 < sum(sides.values()) < 6
    # Patients gain volumes with a smaller hash, which is what moves them to the other side.
    volumes = list(open_store(tmp_path / "store"))
    grown = volumes + [replace(v, id=f"new{v.id}", content=f"{i:064d}") for i, v in enumerate(volumes)]
    free, kept = (split_store(grown, (16, 16, 16), 0.4, 3, known) for known in (None, sides))
    of = {v.id: v.content for v in grown}
    old = {of[r.volume] for r in kept.held_out} & set(sides)
    assert old == {content for content, out in sides.items() if out}
    assert {of[r.volume] for r in free.held_out} & set(sides) != old
    second = small_settings(*words, f"data.split_from={tmp_path / 'first'}", "run.seed=5")
    pretrain(second, open_store(tmp_path / "store"), tmp_path / "second")
    assert json.loads((tmp_path / "second/split.json").read_text()) == sides
    with pytest.raises(SettingsError, match="split_from"):
        pretrain(
            small_settings(*words, f"data.split_from={tmp_path}"), open_store(tmp_path / "store"), tmp_path / "third"
        )
