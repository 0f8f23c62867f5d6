"""Every pre-training recipe that comes with the package can be read, said again as TOML, and does two steps."""

import tomllib

import pytest
import torch

from engine.small import make_store
from wavespark.config import load_pretraining, to_toml, training_configs
from wavespark.engine import load_encoder, pretrain
from wavespark.files import read_lines

TINY = {
    "tiny-cpu": (),
    "openmind-h100": ("data.batch=2", "run.keep_every=0"),
    "rsna-h100": ("data.batch=2", "data.crop=[48, 32, 32]", "run.keep_every=0"),
    "kaggle-t4": ("data.batch=4",),
    "seed-2025-10": ("data.batch=2", "data.crop=[64, 32, 32]", "mask.block=1"),
    "dense-mae": ("data.batch=2",),
    "spark-random": ("data.batch=2",),
    "mim": ("data.batch=2", "data.crop=[24, 16, 16]", "objective.second_view_cells=[1, 1, 1]"),
    "hard-cells": ("data.batch=2",),
    "head-24gb": ("data.batch=2", "run.keep_every=0"),
}
WORDS = (
    "data.crop=[32, 32, 32]",
    "data.workers=0",
    "run.steps=2",
    "run.device='cpu'",
    "run.threads=1",
    "run.held_out_crops=2",
    "run.tensorboard=false",
    "health.probe=''",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("recipes"))


def test_the_recipes_are_those_that_the_contract_names():
    assert set(training_configs()) >= set(TINY)


@pytest.mark.parametrize("name", training_configs())
def test_a_recipe_survives_being_written_and_read(name):
    settings = load_pretraining(name)
    assert type(settings).model_validate(tomllib.loads(to_toml(settings.model_dump()))) == settings


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dense-mae", ["objective.dense=true"]),
        ("spark-random", ["objective.where=everywhere"]),
        ("mim", ["objective.second_view=1.0"]),
        ("hard-cells", ["mask.guide=hard", "mask.guide_strength=0.5", "mask.guide_steps=400"]),
    ],
)
def test_a_baseline_is_tiny_cpu_but_for_what_makes_it_a_baseline(name, words):
    assert load_pretraining(name) == load_pretraining("tiny-cpu", words)


FAST = ("tiny-cpu", "seed-2025-10", "dense-mae", "spark-random", "mim", "hard-cells")
EACH = [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in training_configs()]


@pytest.mark.parametrize("name", EACH)
def test_a_recipe_does_two_steps_on_a_tiny_crop(name, store, tmp_path):
    settings = load_pretraining(name, [*WORDS, *TINY.get(name, ("data.batch=2",))])
    summary = pretrain(settings, store, tmp_path / "run")
    assert (summary.steps, summary.model) == (2, settings.model.name)
    losses = [line["loss"] for line in read_lines(tmp_path / "run" / "metrics.jsonl", strict=False)]
    # In so small a crop of the seed's large cells there may be nothing to predict: a loss of 0. One that is no number is null.
    assert len(losses) == 2 and all(loss is not None and 0 <= loss < 100 for loss in losses)
    encoder = load_encoder(tmp_path / "run")
    levels = encoder(torch.zeros(1, 1, *settings.data.crop), modality="MR")
    assert len(levels) == len(encoder.channels)
