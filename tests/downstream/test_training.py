"""Fine-tuning: what moves and what stays, the same windows in both arms, and models that come back as they were saved."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from downstream.labelled import CROP, Small, fresh_encoder, small_finetuning
from wavespark.downstream import Detect, Plan, Segment, fit, load_model, read_labels, run_study, save_model
from wavespark.downstream.classify import Classify, joined, of_items, visible_cells, with_targets
from wavespark.downstream.fitting import batches, network_for, optimizer_for
from wavespark.downstream.heads import copied, encoder_of, untrained
from wavespark.downstream.items import Labelled, split_labelled, with_maps, with_points
from wavespark.downstream.page import study_page
from wavespark.downstream.study import labels_per_run
from wavespark.downstream.verdict import verdict
from wavespark.errors import CheckpointError, ModelError, SettingsError, TrainingStopped


@pytest.fixture(scope="module")
def items(small: Small) -> list[Labelled]:
    return with_maps(small.table, small.store, "label")


def segment(*words: str, **defaults: object) -> Segment:
    return Segment(classes=3, settings=small_finetuning(*words, **defaults))


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in module.state_dict().items()}


def test_a_frozen_encoder_does_not_move_and_the_head_does(items: list[Labelled]) -> None:
    encoder = fresh_encoder()
    before, task = state(encoder), segment(frozen=True, decoder="linear")
    done = fit(task, encoder, items, seed=0, pretrained=True)
    assert all(torch.equal(before[n], t) for n, t in encoder.state_dict().items())
    assert done.model.decoder[0].weight.abs().max() > 0  # type: ignore[index, union-attr]
    assert len(done.losses) == 3


def test_a_pretrained_encoder_waits_for_its_head_and_one_from_scratch_does_not(items: list[Labelled]) -> None:
    for pretrained in (True, False):
        encoder = fresh_encoder()
        before = state(encoder)
        fit(segment("optimizer.head_steps=0.99", "run.steps=2"), encoder, items, seed=0, pretrained=pretrained)
        still = all(torch.equal(before[n], t) for n, t in encoder.state_dict().items())
        assert not still  # the last step is for all
        encoder.load_state_dict(before)
        with pytest.raises(TrainingStopped):
            fit(
                segment("optimizer.head_steps=0.9", "run.steps=50"),
                encoder,
                items,
                seed=0,
                pretrained=pretrained,
                should_stop=_after(3),
            )
        assert all(torch.equal(before[n], t) for n, t in encoder.state_dict().items()) is pretrained


def _after(steps: int) -> Callable[[], str | None]:
    seen: list[int] = []

    def stop() -> str | None:
        seen.append(1)
        return "SIGTERM" if len(seen) == steps else None

    return stop


def test_learning_rates_fall_towards_the_stem_of_a_pretrained_encoder_only() -> None:
    task, encoder = segment("optimizer.layer_decay=0.5"), fresh_encoder()
    model = network_for(task, encoder, 0)
    names = {id(p): n for n, p in model.named_parameters()}

    def shares(pretrained: bool) -> dict[str, float]:
        groups = optimizer_for(model, task.settings, 1e-3, pretrained).param_groups
        return {names[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}

    found = shares(True)
    assert set(found) == set(names.values())
    assert {v for n, v in found.items() if n.startswith("encoder.stems")} == {0.5**3}
    assert {v for n, v in found.items() if n.startswith("encoder.stages.0")} == {0.5**2}
    assert {v for n, v in found.items() if n.startswith("encoder.stages.1")} == {0.5}
    assert {v for n, v in found.items() if not n.startswith("encoder.")} == {1.0}
    assert set(shares(False).values()) == {1.0}


def test_both_arms_see_the_same_windows_in_the_same_order_whatever_the_threads(items: list[Labelled]) -> None:
    def windows(workers: int, seed: int) -> list[np.ndarray]:
        task = segment(f"data.workers={workers}", "run.steps=5", "data.augmentation=strong")
        return [s.voxels for _, _, scenes in batches(items, task.settings, seed, {"MR": 1}) for s in scenes]

    one, three, other = windows(1, 0), windows(3, 0), windows(1, 1)
    assert len(one) == 10
    assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_volume_can_be_learned_by_heart(items: list[Labelled]) -> None:
    task = segment("run.steps=40", "optimizer.learning_rate=1e-2", "data.flip=0")
    done = fit(task, fresh_encoder(), items[:1], seed=0, pretrained=False)
    assert np.mean(done.losses[-5:]) < 0.75 * np.mean(done.losses[:5])
    scores = task.scores(task.predict(done.model, items[0].volume), items[0])
    untaught = task.scores(task.predict(network_for(task, fresh_encoder(), 0), items[0].volume), items[0])
    assert scores["dice"] > 0.4 > untaught["dice"] + 0.1, (scores, untaught)


def test_the_scratch_control_is_the_same_network_with_other_weights(small: Small) -> None:
    encoder = fresh_encoder()
    twin, control = copied(encoder), untrained(encoder, 5)
    assert all(
        torch.equal(a, b) for a, b in zip(twin.state_dict().values(), encoder.state_dict().values(), strict=True)
    )
    assert [tuple(p.shape) for p in control.parameters()] == [tuple(p.shape) for p in encoder.parameters()]
    assert not torch.equal(control.stems["MR"].weight, encoder.stems["MR"].weight)
    again = untrained(encoder, 5)
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), control.state_dict().values(), strict=True)
    )


def test_an_encoder_without_the_stem_is_refused_with_what_it_takes(items: list[Labelled]) -> None:
    from wavespark.models import create_model

    encoder = create_model("waveformer_tiny", stems={"CT": 3}, channels=(12, 24), depths=(1, 1), heads=(1, 2))
    with pytest.raises(ModelError, match=r"takes \{'CT': 3\}.*MR volumes have 1 channel"):
        fit(segment(), encoder, items, seed=0, pretrained=True)


@pytest.mark.parametrize("kind", ["segment light", "segment full", "segment linear", "detect", "classify", "classes"])
def test_a_saved_model_predicts_the_same_when_it_is_loaded(
    small: Small, items: list[Labelled], tmp_path: Path, kind: str
) -> None:
    settings = small_finetuning("run.steps=1", decoder=kind.rsplit(maxsplit=1)[-1] if "segment" in kind else "light")
    if kind.startswith("segment"):
        task, labelled = Segment.of(items, settings), items
    elif kind == "detect":
        task, labelled = Detect(settings=settings), with_points(read_labels(small.points, small.store), small.store)  # type: ignore[assignment]
    else:
        labelled, names, exclusive = with_targets(
            small.table, small.store, ["kind"] if kind == "classes" else ["Left A", "Right A"]
        )
        task = of_items(labelled, names, exclusive, settings)  # type: ignore[assignment]
    done = fit(task, fresh_encoder(), labelled, seed=0, pretrained=True)
    save_model(tmp_path / "model", task, done.model, {"steps": 1})
    found = load_model(tmp_path / "model", "cpu")
    assert found.task.describe() == task.describe()
    assert found.task.settings == settings
    a, b = task.predict(done.model, items[0].volume), found.task.predict(found.model, items[0].volume)
    for x, y in zip((a.index_M3, a.scores_M), (b.index_M3, b.scores_M), strict=True) if kind == "detect" else [(a, b)]:
        np.testing.assert_array_equal(x, y)
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(tmp_path / "model")


def test_a_classifier_reads_cells_with_foreground_only(small: Small) -> None:
    labelled, names, exclusive = with_targets(small.table, small.store, ["Left A", "Right A"])
    task = of_items(labelled, names, exclusive, small_finetuning())
    model = network_for(task, fresh_encoder(), 0).eval()
    assert task.prior == (0.5, 0.5)
    crop, foreground = torch.randn(1, 1, *CROP), np.zeros(CROP, bool)
    foreground[2:7, 4:9, 5:11] = True
    visible = torch.from_numpy(visible_cells(foreground, encoder_of(model).cell))[None]
    with torch.no_grad():
        before = model(crop, visible, modality="MR")
        crop[0, 0, 12:] = math.nan
        assert torch.equal(model(crop, visible, modality="MR"), before)


def test_lateral_labels_change_places_when_a_window_is_mirrored(small: Small) -> None:
    labelled, names, exclusive = with_targets(small.table, small.store, ["Left A", "Right A"])
    task = of_items(labelled, names, exclusive, small_finetuning("data.flip=1"))
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    for _, batch, scenes in batches(labelled, task.settings, 0, {"MR": 1}):
        for item, scene in zip(batch, scenes, strict=True):
            assert scene.mirrored
            seen.append((item.targets, task._targets(scene, item)))  # type: ignore[arg-type]
    assert all(np.array_equal(a[::-1], b) for a, b in seen)


def test_points_and_vessels_pull_on_the_cells_that_hold_them(small: Small, items: list[Labelled]) -> None:
    labelled, names, exclusive = with_targets(small.table, small.store, ["Left A", "Right A"])
    points = with_points(read_labels(small.points, small.store), small.store)
    task: Classify = of_items(
        labelled, names, exclusive, small_finetuning("run.steps=1", "data.labelled_share=1", "data.flip=0")
    )
    plain = fit(task, fresh_encoder(), labelled, seed=0, pretrained=True).losses
    helped = fit(task, fresh_encoder(), joined(labelled, points, []), seed=0, pretrained=True).losses
    mapped = fit(task, fresh_encoder(), joined(labelled, [], items), seed=0, pretrained=True).losses
    assert helped[0] != plain[0]
    assert mapped[0] > plain[0]


def test_a_study_compares_pairs_and_goes_on_where_it_was_stopped(
    small: Small, items: list[Labelled], tmp_path: Path
) -> None:
    train, test = split_labelled(items, small.table, 0.5, 0)
    task, encoder = Segment.of(items, small_finetuning("run.steps=2")), fresh_encoder()
    plan = Plan(labels=(1, 2), seeds=2)
    calls = 0

    def stop() -> str | None:
        nonlocal calls
        calls += 1
        return "SIGTERM" if calls == 5 else None

    with pytest.raises(TrainingStopped) as stopped:
        run_study(task, encoder, train, test, plan, tmp_path / "run", should_stop=stop)
    assert stopped.value.exit_code == 75
    kept = {p.name: p.read_bytes() for p in (tmp_path / "run" / "parts").iterdir()}
    assert sorted(kept) == ["pre-trained-1-0.json", "scratch-1-0.json"]
    results = run_study(task, encoder, train, test, plan, tmp_path / "run")
    whole = run_study(task, encoder, train, test, plan, tmp_path / "whole")
    assert all((tmp_path / "run" / "parts" / name).read_bytes() == content for name, content in kept.items())
    assert results["table"] == whole["table"]
    assert [(r["arm"], r["labels"]) for r in results["table"]] == [
        ("pre-trained", 1),
        ("scratch", 1),
        ("pre-trained", 2),
        ("scratch", 2),
    ]
    for n in (1, 2):
        value = {r["arm"]: r["figures"]["dice"]["value"] for r in results["table"] if r["labels"] == n}
        gain = next(g for g in results["gains"] if g["labels"] == n)["figures"]["dice"]["value"]
        assert gain == pytest.approx(value["pre-trained"] - value["scratch"], abs=1e-9)
    assert load_model(tmp_path / "run").config["provenance"]["volumes"] == 2
    assert load_model(tmp_path / "run").modalities == ("MR",)
    page = study_page(results)
    assert "<svg" in page
    assert "http:" not in page and "https:" not in page
    assert verdict(results).count("label(s)") == 2
    with pytest.raises(SettingsError, match="began with other settings"):
        run_study(Segment.of(items, small_finetuning("run.steps=3")), encoder, train, test, plan, tmp_path / "run")
    json.dumps(results, allow_nan=False)


def test_numbers_of_labels_are_read_from_words() -> None:
    assert labels_per_run("1,2,all", 7) == (1, 2, 7)
    assert Plan(labels=(1, 8, 20)).counts(5) == (1, 5)
    for text in ("0", "x", "", "1;2"):
        with pytest.raises(SettingsError, match="1,2,4,8,all"):
            labels_per_run(text, 3)
