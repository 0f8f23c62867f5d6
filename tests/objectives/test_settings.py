"""Settings of masks, objective and health: what cannot run is refused with the numbers."""

import tomllib

import pytest
import torch

from objectives.parts import SECOND_VIEW
from wavespark.config import load_pretraining, to_toml
from wavespark.engine.learning.objective import check_processes
from wavespark.errors import SettingsError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("objective.contrast=0.1",), "needs a second view"),
        (("objective.dense=true", "objective.second_view=1.0"), "baseline of its own"),
        ((*SECOND_VIEW, "mask.block=2"), "leave mask.block at 1"),
        ((*SECOND_VIEW, "data.crop=[60, 64, 64]"), "whole cells"),
        (("objective.second_view=1.0", "objective.second_view_cells=[8, 8, 8]"), "cover fewer cells"),
        (("objective.second_view=1.0", "data.crop=[16, 16, 16]"), "cover fewer cells"),
        ((*SECOND_VIEW, "objective.second_view_factor=[1, 1, 1]"), "cannot be masked"),
        ((*SECOND_VIEW, "objective.second_view_factor=[0, 1, 1]"), "at least 1"),
        ((*SECOND_VIEW, "objective.contrast=0.1", "run.parallel=fsdp"), "use 'ddp'"),
        ((*SECOND_VIEW, "objective.contrast=0.1", "run.accumulate=2"), "would cut"),
        (("mask.ratio_low=0.7",), "must not be above ratio 0.6"),
        (("mask.ratio_low=0.5", "mask.ratio_steps=9"), "leave one of them at 0"),
        (("mask.local_ratio_start=0.5",), "needs ratio_steps"),
        ((*SECOND_VIEW, "mask.local_ratio=1.0"), "mask.local_ratio"),
        (("mask.guide=hards",), "mask.guide"),
        (("mask.guide_strength=1.5",), "mask.guide_strength"),
        (("health.collapse=sometimes",), "health.collapse"),
        (("objective.contrasts=0.1",), "did you mean 'objective.contrast'"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(words, message):
    with pytest.raises(SettingsError, match=message) as caught:
        load_pretraining("tiny-cpu", words)
    assert "\n" not in str(caught.value)


def test_the_box_of_a_second_view_is_larger_than_the_crop():
    assert load_pretraining("tiny-cpu").box == (64, 64, 64)
    settings = load_pretraining("tiny-cpu", [*SECOND_VIEW, "objective.second_view_factor=[2, 2, 1]"])
    assert settings.box == (128, 128, 64)


def test_settings_survive_toml():
    settings = load_pretraining("tiny-cpu", [*SECOND_VIEW, "mask.guide=hard", "mask.guide_steps=7", "health.probe=''"])
    again = type(settings).model_validate(tomllib.loads(to_toml(settings.model_dump())))
    assert again == settings


def test_a_drawn_share_of_hidden_cells_fills_its_range_and_depends_on_seed_and_step_only():
    settings = load_pretraining("tiny-cpu", ["mask.ratio_low=0.6", "mask.ratio=0.9"])
    shares = [settings.mask.schedule.ratio_at(step, 3) for step in range(1, 201)]
    assert 0.6 <= min(shares) < 0.62 and 0.88 < max(shares) < 0.9
    assert abs(sum(shares) / len(shares) - 0.75) < 0.02
    assert shares == [settings.mask.schedule.ratio_at(step, 3) for step in range(1, 201)]
    assert shares != [settings.mask.schedule.ratio_at(step, 4) for step in range(1, 201)]


def test_checking_settings_makes_no_weights(monkeypatch):
    made = []
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda t, **_: made.append(t.device.type))
    load_pretraining("tiny-cpu", ["model.name=waveformer_large"])
    assert not set(made) - {"meta"}


def test_a_contrast_is_refused_where_several_processes_share_a_batch():
    settings = load_pretraining("tiny-cpu", [*SECOND_VIEW, "objective.contrast=0.1"])
    check_processes(settings, 1)
    with pytest.raises(SettingsError, match="2 processes would each compare their own part only"):
        check_processes(settings, 2)


def test_the_guide_grows_to_its_strength():
    mask = load_pretraining("tiny-cpu", ["mask.guide=hard", "mask.guide_steps=10"]).mask.schedule
    assert [round(mask.strength_at(step), 3) for step in (1, 6, 11, 100)] == [0.0, 0.25, 0.5, 0.5]
    assert load_pretraining("tiny-cpu", ["mask.guide=hard"]).mask.schedule.strength_at(1) == 0.5
    assert load_pretraining("tiny-cpu").mask.schedule.strength_at(100) == 0
