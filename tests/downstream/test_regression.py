"""Regression: what is learned, in which unit it is answered, and what it is compared with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from downstream.labelled import Small, fresh_encoder, small_finetuning, write_table
from wavespark.downstream import LabelTable, Plan, fit, load_model, read_labels, run_study
from wavespark.downstream.evaluation import evaluate
from wavespark.downstream.figures import figures, make_row
from wavespark.downstream.fitting import network_for
from wavespark.downstream.prediction import ESTIMATES, predict_store
from wavespark.downstream.regress import Regress, regression_of, value_of, with_values
from wavespark.engine import load_encoder
from wavespark.errors import SettingsError
from wavespark.sampling.scene import Scene


def ages(small: Small, folder: Path, texts: list[str]) -> LabelTable:
    rows = [{"source": r, "age": t} for r, t in zip(_sources(small), texts, strict=True)]
    return read_labels(write_table(folder / "ages.csv", rows), small.store)


def _sources(small: Small) -> list[str]:
    lines = small.labels.read_text().splitlines()[1:]
    return [line.split(",")[0] for line in lines]


def test_values_are_numbers_and_empty_ones_are_left_out(small: Small, tmp_path: Path) -> None:
    items = with_values(ages(small, tmp_path, ["20", "", "31.5", "44"]), small.store, "age")
    assert sorted(map(value_of, items)) == [20, 31.5, 44]
    with pytest.raises(SettingsError, match=r"line 3.*finite number"):
        with_values(ages(small, tmp_path, ["20", "old", "31", "44"]), small.store, "age")
    with pytest.raises(SettingsError, match="there is nothing to learn"):
        regression_of(with_values(ages(small, tmp_path, ["5"] * 4), small.store, "age"), "age", small_finetuning())


def test_a_network_that_has_learned_nothing_answers_about_the_mean_in_the_unit_of_the_column(
    small: Small, tmp_path: Path
) -> None:
    items = with_values(ages(small, tmp_path, ["1020", "1040", "1060", "1080"]), small.store, "age")
    task = regression_of(items, "age", small_finetuning("run.steps=1", "optimizer.learning_rate=1e-9"))
    assert (task.mean, task.deviation) == pytest.approx((1050, 500**0.5))
    model = fit(task, fresh_encoder(), items, seed=0, pretrained=True).model
    assert task.predict(model, items[0].volume) == pytest.approx(1050, abs=15)


def test_two_textures_are_told_apart_by_their_numbers(small: Small, tmp_path: Path) -> None:
    items = with_values(ages(small, tmp_path, ["20", "40", "", ""]), small.store, "age")
    task = regression_of(items, "age", small_finetuning())
    rough = np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32)
    smooth = np.broadcast_to(np.linspace(-2, 2, 16, dtype=np.float32), (1, 16, 16, 16)).copy()
    scenes = [Scene(voxels=v, maps={"foreground": np.ones((16, 16, 16), bool)}) for v in (rough, smooth)]
    model = network_for(task, fresh_encoder(), 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = task.loss(model, scenes, items, "MR")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(0.5, abs=0.05)  # both are one standard deviation from the mean
    assert losses[-1] < 0.05


def test_figures_are_the_mean_absolute_error_and_r2_beside_the_mean_of_the_training_volumes(
    small: Small, tmp_path: Path
) -> None:
    items = with_values(ages(small, tmp_path, ["10", "20", "40", "50"]), small.store, "age")
    task = Regress(name="age", mean=25.0, deviation=10.0, settings=small_finetuning())
    truth = np.array([value_of(i) for i in items])
    estimate = truth + np.array([1.0, -2.0, 3.0, -4.0])
    rows = [make_row(task, e, i) for e, i in zip(estimate, items, strict=True)]
    found = {name: figure(np.arange(4)) for name, figure in figures(task, rows).items()}
    assert found["mae"] == pytest.approx(2.5)
    assert found["mae_of_mean"] == pytest.approx(np.abs(truth - 25).mean())
    assert found["r2"] == pytest.approx(1 - 30 / ((truth - truth.mean()) ** 2).sum())


def test_a_study_of_a_number_is_saved_applied_and_evaluated(small: Small, tmp_path: Path) -> None:
    table = ages(small, tmp_path, ["20", "40", "60", "80"])
    items = with_values(table, small.store, "age")
    task = regression_of(items[:2], "age", small_finetuning("run.steps=1"))
    results = run_study(task, load_encoder(small.encoder), items[:2], items[2:], Plan(plain=True), tmp_path / "run")
    assert results["main"] == "mae" and results["lower_is_better"]
    assert {"mae", "r2", "mae_of_mean"} <= set(results["table"][0]["figures"])
    model = load_model(tmp_path / "run", "cpu")
    assert model.task.describe() == task.describe()
    predict_store(model, small.store, tmp_path / "out")
    lines = (tmp_path / "out" / ESTIMATES).read_text().splitlines()
    assert lines[0] == "id,age" and len(lines) == 5
    by_id = dict(line.split(",") for line in lines[1:])
    document = evaluate(tmp_path / "out", small.store, table)
    errors = [abs(float(by_id[i.volume.id]) - value_of(i)) for i in items]
    assert document["figures"]["mae"]["value"] == pytest.approx(np.mean(errors), abs=1e-4)
