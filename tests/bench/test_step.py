"""The bench of a step: its plumbing on a tiny crop, its arithmetic on made-up costs. The figures themselves are in benchmarks/results."""

import json
import mmap
from dataclasses import replace

import pytest
import torch

from laws.kinds import encoder_of
from wavespark.bench import StepBench, in_clean_process, measure_step
from wavespark.bench.cost import Cost, median_ratio
from wavespark.bench.dense import DenseWaveFormer
from wavespark.bench.dense_resenc import DenseResEnc
from wavespark.bench.lines import step_lines
from wavespark.bench.step import _compare, dense_copy
from wavespark.bench.whole_step import WholeStep
from wavespark.cli import bench as verb
from wavespark.errors import SettingsError, ShapeError, WavesparkError
from wavespark.models import create_model

TINY = StepBench(model="waveformer_tiny", size=16, rounds=2, hidden=(0.5, 0.75))


@pytest.fixture(scope="module")
def document():
    return in_clean_process(TINY)


def test_every_form_is_measured_and_the_shares_are_exact(document):
    assert list(document["forms"]) == ["everything visible", "plain dense copy", "50 % hidden", "75 % hidden"]
    assert [r["visible_share"] for r in document["results"]] == [0.5, 0.25]
    for form in document["forms"].values():
        assert form["user_seconds"] > 0
        assert form["wall_seconds"] > 0
    assert document["environment"]["torch"] == torch.__version__
    assert document["environment"]["threads"] == 1


def test_the_dense_copy_computes_the_same(document):
    assert document["dense_copy_differs_by"] <= 1e-4


def test_the_result_names_the_command_that_makes_it_again(document):
    assert document["command"] == (
        "wavespark bench step --model waveformer_tiny --size 16 --batch 1 --rounds 2 --threads 1 --seed 0 --hidden 0.5 --hidden 0.75"
    )


def test_the_dense_copy_has_the_gradients_of_the_encoder_too():
    torch.manual_seed(0)
    encoder = create_model("waveformer_tiny", in_channels=1).double()
    crop = torch.randn(2, 1, 24, 16, 32, dtype=torch.float64)
    parameters = list(encoder.parameters())
    found = [level.permute(0, 4, 1, 2, 3) for level in DenseWaveFormer(encoder)(crop)]
    expected = encoder(crop)
    assert all((a - b).abs().max() <= 1e-10 for a, b in zip(found, expected, strict=True))
    gradients = [
        torch.autograd.grad(sum(x.square().mean() for x in levels), parameters) for levels in (found, expected)
    ]
    assert all((a - b).abs().max() <= 1e-10 for a, b in zip(*gradients, strict=True))


def test_the_dense_copy_of_a_resenc_has_its_features_and_gradients_too():
    encoder = encoder_of("resenc_tiny")
    crop = torch.randn(2, 1, 12, 8, 16, dtype=torch.float64)
    found = [level.permute(0, 4, 1, 2, 3) for level in DenseResEnc(encoder).double()(crop)]
    expected = encoder(crop)
    assert all((a - b).abs().max() <= 1e-10 for a, b in zip(found, expected, strict=True))
    parameters = list(encoder.parameters())
    gradients = [torch.autograd.grad(sum(x.pow(3).mean() for x in levels), parameters) for levels in (found, expected)]
    assert all((a - b).abs().max() <= 1e-9 for a, b in zip(*gradients, strict=True))
    with pytest.raises(ShapeError, match="whole cells"):
        DenseResEnc(encoder)(crop[..., :-1])


def test_every_model_has_a_bench_with_a_dense_copy_or_without():
    assert isinstance(dense_copy(encoder_of("waveformer_tiny")), DenseWaveFormer)
    assert isinstance(dense_copy(encoder_of("resenc_l")), DenseResEnc)
    assert dense_copy(encoder_of("isotropic_small")) is None
    found = measure_step(replace(TINY, model="isotropic_small_8", size=32, rounds=1))
    assert found["dense_copy_differs_by"] is None
    assert "There is no dense copy" in "\n".join(step_lines(found))


def test_the_whole_step_is_measured_with_each_decoder():
    found = measure_step(replace(TINY, hidden=(0.5,), rounds=1, decoders=("light", "unet")))
    assert [(line["decoder"], line["form"]) for line in found["steps"]] == [
        ("light", "50 % hidden"),
        ("unet", "50 % hidden"),
    ]
    assert found["command"].endswith("--decoder light --decoder unet")
    page = "\n".join(step_lines(found))
    assert "light, 50 % hidden" in page and "unet, everything visible, predicts 50 %" in page and "bound:" in page
    with pytest.raises(SettingsError, match="light and unet"):
        replace(TINY, decoders=("heavy",))


def test_a_whole_step_is_held_against_what_encoding_and_decoding_cost():
    """E = 6, D = 4: hiding half may cost (1.15 x 0.5 x 6 + 4) / 10 = 0.745."""
    whole = WholeStep.of(create_model("waveformer_tiny"), "light", ("60 % hidden",))
    dense, step = "light, everything visible, predicts 60 %", "light, 60 % hidden"
    assert list(whole.forms(torch.zeros(1), lambda form, number: torch.zeros(1))) == [dense, step]

    def line(seconds, encoder):
        costs = {"everything visible": [cost(6)] * 3, "60 % hidden": [cost(encoder)] * 3}
        return whole.compare({**costs, dense: [cost(10)] * 3, step: [cost(seconds)] * 3}, {"60 % hidden": 0.5}, 1.15)[0]

    assert line(7, 5)["bound"] == pytest.approx(0.745)
    assert line(7, 5)["decode_share"] == pytest.approx(2 / 7)
    assert line(7, 5)["met"] and not line(7.5, 7)["met"]
    assert not line(7, 4)["met"]  # more than 35 % of the step decodes


def test_the_dense_copy_refuses_a_crop_that_ends_inside_a_cell():
    with pytest.raises(ShapeError, match="whole cells"):
        DenseWaveFormer(create_model("waveformer_tiny", in_channels=1))(torch.zeros(1, 1, 17, 16, 16))


def cost(user, wall=1.0):
    return Cost(user=user, wall=wall, faults=0)


def test_a_step_is_held_against_the_faster_dense_form_and_round_by_round():
    costs = {
        "everything visible": [cost(2, 2), cost(20, 4), cost(2, 2)],
        "plain dense copy": [cost(4, 1), cost(40, 2), cost(4, 1)],
        "60 % hidden": [cost(1, 1), cost(10, 2), cost(5, 1)],
    }
    found = _compare(costs, "60 % hidden", 0.4)
    assert found["faster_dense_form"] == "everything visible"
    assert (found["user_ratio"], found["wall_ratio"]) == (0.5, 1)
    assert found["user_ratio_over_share"] == pytest.approx(1.25)
    assert not found["met"]
    assert _compare(costs, "60 % hidden", 0.45)["met"]


def test_load_that_comes_and_goes_between_rounds_does_not_change_the_ratio():
    slow = [1, 1, 10, 3, 1]
    assert median_ratio([cost(0.4 * s) for s in slow], [cost(s) for s in slow], "user") == pytest.approx(0.4)


def test_a_cost_counts_the_time_of_the_work_and_the_pages_it_touches():
    def touch() -> None:
        with mmap.mmap(
            -1, 64 * 2**20
        ) as fresh:  # memory that nobody has touched, unlike what an allocator hands out again
            fresh.madvise(mmap.MADV_NOHUGEPAGE)
            fresh[:: mmap.PAGESIZE] = bytes(len(fresh) // mmap.PAGESIZE)

    quiet, busy = Cost.of(lambda: None), Cost.of(touch)
    assert quiet.user < 0.01
    assert busy.faults > quiet.faults + 1000


def test_impossible_settings_are_refused_in_the_words_of_the_command_line():
    with pytest.raises(SettingsError, match="--rounds 0"):
        StepBench(rounds=0)
    with pytest.raises(SettingsError, match="at least one share"):
        StepBench(hidden=())
    with pytest.raises(SettingsError, match="--size 20 is not a multiple of the 8 voxels"):
        measure_step(replace(TINY, size=20))


def test_what_the_measuring_process_refuses_is_refused_here():
    with pytest.raises(SettingsError, match="there is no model 'nobody'"):
        in_clean_process(replace(TINY, model="nobody"))


def test_a_measuring_process_that_dies_is_an_error_with_the_way_out(monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "nowhere")
    with pytest.raises(WavesparkError, match="smaller --size than 16"):
        in_clean_process(TINY)


def test_the_verb_prints_and_writes_the_result(monkeypatch, capsys, tmp_path, document):
    asked = []
    monkeypatch.setattr("wavespark.bench.in_clean_process", lambda bench: asked.append(bench) or document)
    options = {
        "model": "waveformer_tiny",
        "size": 16,
        "batch": 1,
        "hidden": [0.5],
        "rounds": 2,
        "threads": 1,
        "seed": 0,
    }
    verb.step(**options, output=tmp_path / "step.json", as_json=True)
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "step.json").read_text()) == document
    assert asked == [replace(TINY, hidden=(0.5,))]
    verb.step(**options, output=None, as_json=False)
    said = capsys.readouterr().out
    assert "50 % hidden" in said
    assert "against the faster form of both" in said
    assert document["command"] in said
    with pytest.raises(SettingsError, match="no folder"):
        verb.step(**options, output=tmp_path / "absent" / "step.json", as_json=True)
