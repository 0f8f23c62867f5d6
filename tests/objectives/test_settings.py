"""Settings of masks, objective and health: what cannot run is refused with the numbers."""

import tomllib

import pytest

from objectives.parts import SECOND_VIEW
from wavespark.config import load_pretraining, to_toml
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


def test_the_guide_grows_to_its_strength():
    mask = load_pretraining("tiny-cpu", ["mask.guide=hard", "mask.guide_steps=10"]).mask
    assert [round(mask.strength(step), 3) for step in (1, 6, 11, 100)] == [0.0, 0.25, 0.5, 0.5]
    assert load_pretraining("tiny-cpu", ["mask.guide=hard"]).mask.strength(1) == 0.5
    assert load_pretraining("tiny-cpu").mask.strength(100) == 0
