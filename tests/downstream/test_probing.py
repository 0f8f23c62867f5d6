"""Probes of a column: every control in the table, numbers beside classes, refusals that say what to type."""

import csv
from pathlib import Path

import numpy as np
import pytest

from downstream.labelled import Small, fresh_encoder, make_small, write_table
from wavespark.downstream import LabelTable, ProbePlan, probe_column, read_labels
from wavespark.downstream.probing import CONSTANT, INTENSITIES, OURS, SCRATCH, VOLUME, ask
from wavespark.errors import SettingsError

QUICK = ProbePlan(levels=(-1,), repeats=2)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("eight"), patients=8)


def relabelled(small: Small, folder: Path, column: str, values: list[object]) -> LabelTable:
    with small.labels.open(encoding="utf-8") as file:
        rows = [
            {"source": row["source"], column: value} for row, value in zip(csv.DictReader(file), values, strict=True)
        ]
    return read_labels(write_table(folder / "labels.csv", rows), small.store)


def test_a_table_of_classes_holds_every_control(eight: Small) -> None:
    report = probe_column(fresh_encoder(), eight.store, eight.table, "kind", plan=QUICK)
    assert report.counts == {"even": 4, "odd": 4}
    assert {(r.encoder, r.level, r.probe) for r in report.rows} == {
        *((arm, -1, probe) for arm in (OURS, SCRATCH) for probe in ("knn", "linear")),
        *((arm, None, probe) for arm in (INTENSITIES, VOLUME) for probe in ("knn", "linear")),
        (CONSTANT, None, "majority"),
    }
    (constant,) = [r for r in report.rows if r.encoder == CONSTANT]
    assert constant.figures["balanced_accuracy"].value == constant.figures["auc"].value == 0.5
    ours = next(r for r in report.rows if r.encoder == OURS and r.probe == "linear")
    assert set(ours.gains) == {SCRATCH, INTENSITIES, VOLUME, CONSTANT}
    by_arm = {(r.encoder, r.probe): r.figures["auc"].value for r in report.rows}
    for arm in (SCRATCH, INTENSITIES, VOLUME):
        assert ours.gains[arm]["auc"].value == pytest.approx(by_arm[OURS, "linear"] - by_arm[arm, "linear"])
    document = report.to_json()
    assert (document["task"], document["repeats"], document["chance"]) == ("classification", 2, 0.5)


def test_numbers_are_predicted_and_the_mean_stands_beside(eight: Small, tmp_path: Path) -> None:
    ages = [20.5, 31, 45, 52, 60, 28, 39, 70]
    table = relabelled(eight, tmp_path, "age", ages)
    report = probe_column(fresh_encoder(), eight.store, table, "age", plan=QUICK)
    document = report.to_json()
    assert document["task"] == "regression"
    assert document["target"]["mean"] == pytest.approx(np.mean(ages), abs=1e-5)
    assert {r["probe"] for r in document["rows"]} == {"knn", "linear", "mean"}
    (mean,) = [r for r in report.rows if r.encoder == CONSTANT]
    spread = np.abs(np.array(ages) - np.mean(ages)).mean()
    assert spread < mean.figures["mae"].value < 1.5 * spread
    assert mean.figures["r2"].value < 0
    ours = next(r for r in report.rows if r.encoder == OURS and r.probe == "linear")
    assert ours.gains[CONSTANT]["mae"].value == pytest.approx(mean.figures["mae"].value - ours.figures["mae"].value)


def test_the_control_can_be_left_out(eight: Small) -> None:
    report = probe_column(
        fresh_encoder(), eight.store, eight.table, "kind", plan=ProbePlan(levels=(0,), repeats=1, control=False)
    )
    assert SCRATCH not in {r.encoder for r in report.rows}
    assert all(r.to_json()["gain"] is None for r in report.rows)


@pytest.mark.parametrize(
    ("values", "numeric"),
    [
        ([0, 1] * 4, False),
        ([1, 2, 3, 4] * 2, False),
        ([1, 2, 3, 4, 5, 1, 2, 3], True),
        ([20.5, 31, 45, 52, 60, 28, 39, 70], True),
        (["a", "b", "c", "d", "e", "f", "g", "h"], False),
    ],
)
def test_a_column_of_many_numbers_is_a_regression_by_itself(
    eight: Small, tmp_path: Path, values: list[object], numeric: bool
) -> None:
    table = relabelled(eight, tmp_path, "x", values)
    assert ask(fresh_encoder(), eight.store, table, "x").numeric is numeric


def test_an_explicit_task_wins(eight: Small, tmp_path: Path) -> None:
    table = relabelled(eight, tmp_path, "x", [1, 2] * 4)
    assert ask(fresh_encoder(), eight.store, table, "x", "regression").numeric
    table = relabelled(eight, tmp_path, "x", [20.5, 31, 45, 52, 60, 28, 39, 70])
    assert len(ask(fresh_encoder(), eight.store, table, "x", "classification").classes) == 8


@pytest.mark.parametrize(
    ("values", "task", "sentence"),
    [
        (["old"] + [1] * 7, "regression", "holds no number in 1 of 8 line"),
        (["inf"] + [1] * 7, "regression", "holds no number in 1 of 8 line"),
        ([3] * 8, "regression", "1 value"),
        (["a"] * 8, "auto", "1 class"),
    ],
)
def test_a_column_that_cannot_be_probed_is_refused(
    eight: Small, tmp_path: Path, values: list[object], task: str, sentence: str
) -> None:
    table = relabelled(eight, tmp_path, "x", values)
    with pytest.raises(SettingsError, match=sentence) as refused:
        ask(fresh_encoder(), eight.store, table, "x", task)  # type: ignore[arg-type]
    assert "old" not in str(refused.value).replace("holds", "")


@pytest.mark.parametrize("wrong", [{"task": "guess"}, {"folds": 1}, {"repeats": 0}, {"pools": ()}, {"tile": 4}])
def test_an_impossible_plan_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ProbePlan(**wrong)  # type: ignore[arg-type]


def test_a_level_that_is_not_there_is_refused_before_anything_is_computed(eight: Small) -> None:
    with pytest.raises(SettingsError, match="no level 7"):
        probe_column(fresh_encoder(), eight.store, eight.table, "kind", plan=ProbePlan(levels=(7,)))


def test_many_volumes_need_few_repeats() -> None:
    assert [ProbePlan().repeats_for(n) for n in (5, 48, 100, 999, 5000)] == [20, 20, 10, 1, 1]
    assert ProbePlan(repeats=3).repeats_for(5000) == 3
