"""Arms of a comparison: the plain U-Net, default and tuned learning rates, how heads begin, decoders that were pre-trained too, and what is said."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from downstream.labelled import Small, fresh_encoder, small_finetuning
from wavespark.cli.finetune import class_names, names_in
from wavespark.config.downstream import STRONG_FROM, finetune_settings
from wavespark.downstream import Detect, Plan, Segment, fit, read_labels, run_study
from wavespark.downstream.arms import (
    LINEAR_RATE,
    PLAIN,
    PRETRAINED,
    RATES,
    SCRATCH,
    default_settings,
    peak_rate,
    starting_encoder,
)
from wavespark.downstream.classify import of_items, with_targets
from wavespark.downstream.halves import halves
from wavespark.downstream.heads import LightSegmenter, dense_head, set_class_prior
from wavespark.downstream.items import Labelled, split_labelled, window, with_maps, with_points
from wavespark.downstream.labels import LabelRow, LabelTable
from wavespark.downstream.page import study_page
from wavespark.downstream.plain_unet import PlainUNet, plain_encoder
from wavespark.downstream.segment import class_frequencies
from wavespark.downstream.tuning import FACTORS, folds, tune
from wavespark.downstream.verdict import verdict
from wavespark.errors import SettingsError, TrainingStopped
from wavespark.models import create_model
from wavespark.models.segmentation import dense_decoder


@pytest.fixture(scope="module")
def items(small: Small) -> list[Labelled]:
    return with_maps(small.table, small.store, "label")


def segment(*words: str, **defaults: object) -> Segment:
    return Segment(classes=3, settings=small_finetuning(*words, **defaults))


def test_the_plain_unet_has_the_parameters_of_monais_basic_unet() -> None:
    plain = PlainUNet(plain_encoder({"MR": 1}, 0), 5)
    convs = [(1, 16), (16, 16), (16, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    convs += [(128, 64), (64, 64), (64, 32), (32, 32), (32, 16), (16, 16), (32, 16), (16, 16)]
    ups = [(128, 64), (64, 32), (32, 16), (16, 16)]
    by_hand = sum(27 * a * b + b + 2 * b for a, b in convs) + sum(8 * a * b + b for a, b in ups) + 16 * 5 + 5
    assert sum(p.numel() for p in plain.parameters()) == by_hand
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        networks = pytest.importorskip("monai.networks.nets")
        theirs = networks.BasicUNet(in_channels=1, out_channels=5, features=(16, 16, 32, 64, 128, 16))
    assert sorted(p.numel() for p in plain.parameters()) == sorted(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("size", [(32, 32, 16), (19, 8, 33)])
def test_the_plain_unet_predicts_every_voxel_of_any_size(size: tuple[int, int, int]) -> None:
    model = PlainUNet(plain_encoder({"CT": 3, "MR": 1}, 0), 4)
    for modality, channels in (("CT", 3), ("MR", 1)):
        assert model(torch.randn(2, channels, *size), modality=modality).shape == (2, 4, *size)


def test_the_plain_encoder_gives_the_dense_features_of_visible_cells() -> None:
    encoder, crop = plain_encoder({"MR": 1}, 0), torch.randn(2, 1, 40, 16, 24)
    visible = torch.zeros(2, 3, 1, 2, dtype=torch.bool)
    visible[:, 1, 0, 1] = True
    dense = encoder.dense_levels(crop, "MR")
    for level, whole, stride in zip(encoder(crop, visible), dense, encoder.strides, strict=True):
        b = 16 // stride
        wanted = whole[:, :, b : 2 * b, :b, b : 2 * b].movedim(1, -1)
        assert torch.equal(
            level.features[..., : wanted.shape[3], :], wanted.where(level.layout.inside((b, b, b))[..., None], 0)
        )


def test_arms_start_from_a_copy_from_fresh_weights_and_from_a_plain_network() -> None:
    encoder = fresh_encoder()
    ours, scratch, plain = (starting_encoder(arm, encoder, 3) for arm in (PRETRAINED, SCRATCH, PLAIN))
    assert torch.equal(ours.stems["MR"].weight, encoder.stems["MR"].weight)
    assert ours is not encoder
    assert not torch.equal(scratch.stems["MR"].weight, encoder.stems["MR"].weight)
    again = starting_encoder(PLAIN, encoder, 3)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), again.state_dict().values(), strict=True))
    assert plain.stem_channels == encoder.stem_channels


def test_a_learning_rate_is_that_of_the_settings_or_the_default_of_task_and_family() -> None:
    wave, plain = fresh_encoder(), plain_encoder({"MR": 1}, 0)
    conv = create_model("resenc_tiny", stems={"MR": 1})
    settings = finetune_settings()
    for kind, rates in RATES.items():
        assert tuple(peak_rate(kind, settings, e) for e in (wave, conv, plain)) == rates
    given = finetune_settings(["optimizer.learning_rate=1e-4", "optimizer.plain_learning_rate=2e-4"], frozen=True)
    assert [peak_rate("segment", given, e) for e in (wave, conv, plain)] == [1e-4, 1e-4, 2e-4]
    frozen = finetune_settings(**default_settings(wave, frozen=True))  # type: ignore[arg-type]
    assert peak_rate("segment", frozen, wave) == LINEAR_RATE
    assert peak_rate("classify", frozen, wave) == RATES["classify"][0]
    assert peak_rate("segment", frozen, plain) == RATES["segment"][2]


def test_few_steps_are_mirrored_only_and_many_are_changed_strongly() -> None:
    data = finetune_settings(["data.flip=0.25"]).data
    few, many = data.changes(STRONG_FROM - 1), data.changes(STRONG_FROM)
    assert (few.rotation_degrees, few.elastic_mm, few.gamma, few.scale, few.noise, few.flip) == (0, 0, 0, 0, 0, 0.25)
    assert many.rotation_degrees > 0 and many.elastic_mm > 0 and many.flip == 0.25
    assert finetune_settings(["data.augmentation=strong"]).data.changes(1).gamma > 0
    assert finetune_settings(["data.augmentation=none"]).data.changes(10**6).gamma == 0


@pytest.mark.parametrize(
    "kind", ["wave light", "wave full", "wave linear", "resenc light", "resenc full", "plain light"]
)
def test_a_dense_head_begins_at_the_class_frequencies(kind: str) -> None:
    family, decoder = kind.split()
    encoder = {
        "wave": fresh_encoder,
        "resenc": lambda: create_model("resenc_tiny", stems={"MR": 1}, channels=(4, 6), blocks=(1, 1)),
        "plain": lambda: plain_encoder({"MR": 1}, 0),
    }[family]()
    model = dense_head(encoder, 3, decoder).eval()
    prior = (0.9, 0.09, 0.01)
    set_class_prior(model, prior)
    for name, p in model.named_parameters():  # what is left of the network once its last weights are zero
        if p.ndim == 5 and p.shape[0] == 3 and p.shape[2:] == (1, 1, 1):
            torch.nn.init.zeros_(p)
            assert not name.startswith("encoder.")
    with torch.no_grad():
        share = model(torch.randn(1, 1, 16, 16, 16), modality="MR").softmax(1)
    assert share.mean((0, 2, 3, 4)).tolist() == pytest.approx(prior, rel=1e-4)


def test_class_frequencies_are_those_of_the_maps(items: list[Labelled]) -> None:
    first = items[0].read_map()
    counts = np.array([(first == k).sum() + 1 for k in range(3)])
    assert class_frequencies(items[:1], 3) == pytest.approx(counts / counts.sum())


def test_a_light_decoder_takes_the_finest_features_at_full_resolution_where_there_are_any() -> None:
    model = LightSegmenter(create_model("resenc_tiny", stems={"MR": 1}, channels=(4, 6, 8), blocks=(1, 1, 1)), 3)
    assert len(model.projections) == 2  # no wide convolution at the stride of voxels
    crop = torch.randn(1, 1, 16, 16, 16)
    assert model(crop).shape == (1, 3, 16, 16, 16)
    model(crop).square().mean().backward()
    assert model.fine[0].weight.grad.abs().max() > 0


def test_halves_are_the_two_sides_of_one_volume(items: list[Labelled], small: Small) -> None:
    item = items[1]
    first, second = halves(item)  # type: ignore[misc]
    axis = int(np.argmax(item.volume.size))
    assert first.volume.size[axis] + second.volume.size[axis] == item.volume.size[axis]
    voxels = np.concatenate([first.volume.read(), second.volume.read()], axis + 1)
    np.testing.assert_array_equal(voxels, item.volume.read())
    np.testing.assert_array_equal(np.concatenate([first.read_map(), second.read_map()], axis), item.read_map())
    np.testing.assert_array_equal(second.volume.read((1, 2, 3), (4, 4, 4)), second.volume.read()[:, 1:5, 2:6, 3:7])
    for part in (first, second):
        labels = part.read_map()
        for value, places in part.places.items():
            assert (labels[tuple(places.T)] == value).all()
    whole = window(item, (0, 0, 0), item.volume.size).voxels
    wide = window(first, (0, 0, 0), item.volume.size).voxels  # the other half may not be seen
    beyond = tuple(slice(None) if a != axis else slice(first.volume.size[axis], None) for a in range(3))
    assert len(np.unique(wide[(0, *beyond)])) == 1 < len(np.unique(whole[(0, *beyond)]))
    points = with_points(read_labels(small.points, small.store), small.store)
    pairs = [halves(p) for p in points]
    assert sum(len(part.points) for pair in pairs if pair for part in pair) == sum(len(p.points) for p in points) > 0


def test_folds_are_people_and_never_meet(items: list[Labelled]) -> None:
    parts, kind = folds(items)
    assert kind == "people"
    for train, validation in parts:
        assert not {i.volume.patient for i in train} & {i.volume.patient for i in validation}
    assert sorted(i.volume.id for _, validation in parts for i in validation) == sorted(i.volume.id for i in items)
    assert folds(items[:1])[1] == "halves of one volume"


def test_tuning_takes_the_rate_with_the_best_score_and_the_smaller_of_equals(
    items: list[Labelled], monkeypatch: pytest.MonkeyPatch
) -> None:
    from wavespark.downstream import tuning

    scores = {0: [0.2, 0.4], 1: [0.9, 0.1], 2: [0.6, 0.4]}
    asked: list[float] = []

    def scored(
        task: Any, arm: str, encoder: Any, train: Any, validation: Any, seed: int, rate: float, *rest: Any
    ) -> list[float]:
        asked.append(rate)
        number = (len(asked) - 1) // 2
        return [scores[number][(len(asked) - 1) % 2]]

    monkeypatch.setattr(tuning, "_scores", scored)
    found = tune(segment("optimizer.learning_rate=3e-3"), SCRATCH, fresh_encoder(), items, 0)
    assert found.rates == pytest.approx([1e-3, 3e-3, 9e-3])
    assert found.scores == pytest.approx([0.3, 0.5, 0.5])
    assert found.selected == pytest.approx(3e-3)
    asked.clear()
    scores[1] = [float("nan"), 0.9]
    again = tune(segment("optimizer.learning_rate=3e-3"), SCRATCH, fresh_encoder(), items, 0)
    assert again.scores[1] is None
    assert again.selected == pytest.approx(9e-3)


def test_a_candidate_that_diverges_loses_and_a_signal_ends_the_tuning(
    items: list[Labelled], monkeypatch: pytest.MonkeyPatch
) -> None:
    from wavespark.downstream import tuning

    code = 4

    def diverges(*_: Any, rate: float, **rest: Any) -> Any:
        if rate > 4e-3 or code == 75:
            raise TrainingStopped("stopped", code)
        return fit(*_, rate=rate, **rest)

    monkeypatch.setattr(tuning, "fit", diverges)
    task = segment("optimizer.learning_rate=3e-3", "run.steps=1")
    found = tune(task, PRETRAINED, fresh_encoder(), items[:1], 0)
    assert [score is None for score in found.scores] == [False, False, True]
    code = 75
    with pytest.raises(TrainingStopped):
        tune(task, PRETRAINED, fresh_encoder(), items[:1], 0)


def test_a_tuned_study_with_three_arms_says_what_each_reached_and_at_which_rate(
    small: Small, items: list[Labelled], tmp_path: Path
) -> None:
    train, test = split_labelled(items, small.table, 0.5, 0)
    task = Segment.of(items, small_finetuning("run.steps=1"), {1: "bright", 2: "brighter"})
    plan = Plan(labels=(2,), plain=True, tune=True)
    assert plan.trainings(len(train)) == 3 * (1 + 2 * len(FACTORS))
    progress: list[float] = []
    said: list[str] = []
    results = run_study(
        task, fresh_encoder(), train, test, plan, tmp_path / "run",
        on_progress=lambda done, total, text: progress.append(done / total), log=said.append,
    )  # fmt: skip
    assert progress == sorted(progress) and progress[-1] == 1
    assert [r["arm"] for r in results["table"]] == ["pre-trained", "scratch", "plain"]
    value = {r["arm"]: r["figures"]["dice"]["value"] for r in results["table"]}
    (gain,), (over,) = results["gains"], results["plain_gains"]
    assert gain["figures"]["dice"]["value"] == pytest.approx(value["pre-trained"] - value["scratch"], abs=1e-9)
    assert over["figures"]["dice"]["value"] == pytest.approx(value["pre-trained"] - value["plain"], abs=1e-9)
    for training in results["trainings"]:
        assert training["learning_rate"] == training["tuning"]["selected"] in training["tuning"]["rates"]
    assert results["figure_names"] == {"dice_1": "Dice bright", "dice_2": "Dice brighter"}
    sentence = verdict(results)
    assert all(f"{arm} {value[arm]:.3f}" in sentence for arm in value), sentence
    assert "minus scratch" in sentence and "minus plain" in sentence
    page = study_page(results)
    assert "minus plain" in page and "Candidates" in page
    kept = {p.name for p in (tmp_path / "run" / "parts").iterdir()}
    assert {"plain-2-0.json", "tune-plain-2-0.json", "tune-scratch-2-0.json"} <= kept
    assert run_study(task, fresh_encoder(), train, test, plan, tmp_path / "run") == results


def test_arms_train_at_their_own_rates_and_see_the_same_windows(
    items: list[Labelled], monkeypatch: pytest.MonkeyPatch
) -> None:
    windows: dict[str, list[bytes]] = {}
    original = Segment.loss
    task = segment("run.steps=2")
    for arm in (PRETRAINED, SCRATCH, PLAIN):
        seen: list[bytes] = []

        def loss(self: Segment, model: Any, scenes: Any, batch: Any, modality: str, seen: list[bytes] = seen) -> Any:
            seen += [s.voxels.tobytes() for s in scenes]
            return original(self, model, scenes, batch, modality)

        with monkeypatch.context() as patch:
            patch.setattr(Segment, "loss", loss)
            done = fit(task, starting_encoder(arm, fresh_encoder(), 0), items, seed=0, pretrained=arm == PRETRAINED)
        windows[arm] = seen
        assert done.learning_rate == RATES["segment"][2 if arm == PLAIN else 0]
    assert windows[PRETRAINED] == windows[SCRATCH] == windows[PLAIN]
    assert len(windows[PLAIN]) == 4


def test_every_task_has_a_plain_arm_that_learns_and_answers(small: Small, items: list[Labelled]) -> None:
    targets, names, exclusive = with_targets(small.table, small.store, ["kind"])
    settings = small_finetuning("run.steps=1", "data.crop=[32, 32, 16]")
    points = with_points(read_labels(small.points, small.store), small.store)
    for task, labelled in (
        (of_items(targets, names, exclusive, settings), targets),
        (Detect(settings=settings), points),
    ):
        done = fit(task, plain_encoder({"MR": 1}, 0), labelled, seed=0, pretrained=False)
        assert all(np.isfinite(v) for v in task.scores(task.predict(done.model, items[0].volume), labelled[1]).values())


def test_a_frozen_comparison_trains_the_whole_plain_network(items: list[Labelled]) -> None:
    encoder = plain_encoder({"MR": 1}, 0)
    before = encoder.first[0].weight.clone()
    fit(segment(frozen=True, decoder="linear"), encoder, items, seed=0, pretrained=False)
    assert not torch.equal(before, encoder.first[0].weight)


def test_a_decoder_that_was_pretrained_is_taken_over_by_default_and_the_log_says_so(
    small: Small, items: list[Labelled], tmp_path: Path
) -> None:
    encoder = fresh_encoder()
    assert default_settings(encoder) == {}
    donor = dense_decoder(encoder, 1)
    encoder.pretrained_decoder = {name: torch.full_like(t, 0.125) for name, t in donor.state_dict().items()}
    assert default_settings(encoder) == {"decoder": "full"}
    task = Segment.of(items, small_finetuning("run.steps=1", **default_settings(encoder)))
    model = task.build(starting_encoder(PRETRAINED, encoder, 0))
    taken = {n for n, t in model.decoder.state_dict().items() if t.eq(0.125).all()}  # type: ignore[union-attr, operator]
    assert taken == {n for n in donor.state_dict() if not n.startswith("out.")}
    control = task.build(starting_encoder(SCRATCH, encoder, 0))
    assert not any(t.eq(0.125).all() for t in control.decoder.state_dict().values())  # type: ignore[union-attr, operator]
    said: list[str] = []
    train, test = split_labelled(items, small.table, 0.5, 0)
    run_study(task, encoder, train, test, Plan(control=False), tmp_path / "run", log=said.append)
    assert any(
        f"{len(taken)} of its {len(donor.state_dict())} weight tensors start the pre-trained arm" in s for s in said
    )
    light = Segment.of(items, small_finetuning("run.steps=1"))
    said.clear()
    run_study(light, encoder, train, test, Plan(control=False), tmp_path / "light", log=said.append)
    assert any("decoder=light leaves out" in s for s in said)


def test_names_of_classes_are_read_from_words() -> None:
    assert class_names("1=CSF, 2=grey matter") == {1: "CSF", 2: "grey matter"}
    for text in ("CSF", "0=background", "1=", "1=a,1=b", "1=a,2=a", ""):
        with pytest.raises(SettingsError, match="--classes"):
            class_names(text)


def test_names_of_classes_may_stand_in_a_column_of_the_labels() -> None:
    def table(*texts: str) -> Any:
        rows = tuple(LabelRow(line=k, volume=str(k), values={"classes": text}) for k, text in enumerate(texts, 2))
        return LabelTable(name="l.csv", folder=Path(), columns=("classes",), rows=rows, unmatched=())

    assert names_in(table("1=CSF; 2=GM", "", "1=CSF; 2=GM")) == {1: "CSF", 2: "GM"}
    assert names_in(table("", "")) is None
    with pytest.raises(SettingsError, match=r"l\.csv: column 'classes': '1:CSF' is not NUMBER=NAME"):
        names_in(table("1:CSF"))
    with pytest.raises(SettingsError, match="2 different texts"):
        names_in(table("1=CSF", "1=GM"))


def test_names_of_classes_must_name_what_is_there(items: list[Labelled]) -> None:
    task = Segment.of(items, small_finetuning(), {2: "brighter"})
    assert task.names == ("1", "brighter")
    assert task.describe() == {"kind": "segment", "classes": 3, "names": ["1", "brighter"]}
    with pytest.raises(SettingsError, match="class 7 has a name"):
        Segment.of(items, small_finetuning(), {7: "nothing"})


def test_where_less_is_better_a_negative_difference_is_better() -> None:
    def rows(low: float, high: float) -> list[dict[str, Any]]:
        return [{"labels": 4, "figures": {"mae": {"value": (low + high) / 2, "low": low, "high": high}}}]

    table = [{"arm": arm, **row} for arm in ("pre-trained", "scratch") for row in rows(5, 6)]
    results = {"main": "mae", "lower_is_better": True, "table": table, "gains": rows(-2, -1), "plain_gains": rows(1, 2)}
    text = verdict(results)
    assert "minus scratch -1.500 [-2.000, -1.000], better" in text
    assert "minus plain +1.500 [+1.000, +2.000], worse" in text
    json.dumps(results)


def test_a_training_leaves_the_threads_of_the_process_as_they_are(items: list[Labelled]) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        fit(segment("run.steps=1", "run.threads=1"), fresh_encoder(), items, seed=0, pretrained=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
