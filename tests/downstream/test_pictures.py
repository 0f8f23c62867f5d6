"""The report of a fine-tuning: outlines lie on the borders of the classes; tables fit; missing intervals are explained."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from downstream.labelled import Small
from wavespark.cli.evaluate import require_predictions
from wavespark.cli.figures import explanations, figure, figure_lines
from wavespark.downstream import page
from wavespark.downstream.items import with_maps
from wavespark.downstream.pictures import MOST_CASES, case_figures, outlined, save_case
from wavespark.errors import SettingsError


def test_an_outline_is_the_border_of_its_class_inside_it() -> None:
    image, labels = np.full((288, 288), 7, np.uint8), np.zeros((288, 288), np.uint16)
    labels[10:20, 30:50], labels[100:103, 100:103] = 1, 2
    found = outlined(image, labels)
    inside = np.zeros_like(labels, bool)
    inside[11:19, 31:49] = True
    assert set(found[(labels == 1) & ~inside]) == {200} and set(found[inside]) == {7}
    assert found[101, 101] == 7 and found[100, 101] == 201 and set(found[labels == 0]) == {7}


def test_cases_are_kept_and_shown_in_three_planes(small: Small, tmp_path: Path) -> None:
    items = with_maps(small.table, small.store, "label")
    assert case_figures(tmp_path, ()) is None
    for number, item in enumerate(items):
        save_case(tmp_path, number, item, np.roll(item.read_map(), 1, axis=0))
    assert len(list((tmp_path / "cases").iterdir())) == MOST_CASES
    shown = case_figures(tmp_path, ("CSF", "<GM>"))
    assert shown is not None and shown.count("<img") == MOST_CASES * 3 * 3
    assert ">CSF<" in shown and "&lt;GM&gt;" in shown and items[0].volume.id in shown
    pictures = [part.split('"')[0] for part in shown.split("base64,")[1:]]
    assert len(set(pictures)) == len(pictures), "image, truth and prediction differ in every plane"
    (tmp_path / "cases" / "case-0.safetensors").write_bytes(b"damaged")
    rest = case_figures(tmp_path, ())
    assert rest is not None and rest.count("<img") == (MOST_CASES - 1) * 9
    save_case(tmp_path / "points", 0, items[0], [1, 2])
    save_case(tmp_path / "none", 0, replace(items[0], map=None), items[0].read_map())
    assert not (tmp_path / "points").exists() and not (tmp_path / "none").exists()


def test_the_loss_of_every_arm_is_drawn_from_its_training_with_the_most_labels(tmp_path: Path) -> None:
    assert page.loss_chart(tmp_path) is None
    (tmp_path / "parts").mkdir()
    for arm, labels, seed in (("scratch", 2, 0), ("scratch", 8, 0), ("pre-trained", 8, 0), ("pre-trained", 8, 1)):
        part = {"arm": arm, "labels": labels, "seed": seed, "loss": [labels + seed, 0.5]}
        (tmp_path / "parts" / f"{arm}-{labels}-{seed}.json").write_text(json.dumps(part))
    (tmp_path / "parts" / "tune-x.json").write_text("{}")
    drawn = page.loss_chart(tmp_path)
    assert drawn is not None
    assert "pre-trained, 8 labels: 8.00 at step 1, 0.500 at step 2. scratch, 8 labels: 8.00" in drawn


def rows(count: int) -> list[dict[str, object]]:
    value = {"value": 0.8123, "low": 0.79, "high": 0.83, "patients": 9}
    figures = {f"dice_{k}": value for k in range(count)} | {"dice": value | {"low": 0.8123, "high": 0.8123}}
    return [{"arm": arm, "labels": 12, "figures": figures} for arm in ("pre-trained", "minus scratch")]


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("count", [1, 5, 12])
def test_a_table_fits_its_terminal_and_loses_nothing(columns: int, count: int) -> None:
    names = {f"dice_{k}": f"Dice of structure {k}" for k in range(count)}
    lines = figure_lines(rows(count), ["dice", *names], names, columns)
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert text.count("0.812 [0.790, 0.830]") == 2 * count
    assert all(name in text for name in names.values())
    assert explanations(lines) == [e for e in explanations(["(no spread"]) if e]


def test_an_interval_that_says_nothing_is_not_printed_as_one() -> None:
    assert figure({"value": 0.75, "low": 0.75, "high": 0.75, "patients": 6}) == "0.750 (no spread, n=6)"
    assert figure({"value": 0.75, "low": None, "high": None, "patients": 1}) == "0.750 (no interval, n=1)"


def test_evaluate_sends_a_fine_tuning_to_predict_first(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no predictions: give the folder"):
        require_predictions(tmp_path, None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"wavespark predict .* SOURCE --output predictions"):
        require_predictions(tmp_path, None)
    (tmp_path / "predictions.json").write_text("{}")
    with pytest.raises(SettingsError, match="repeat its --store"):
        require_predictions(tmp_path, None)
    require_predictions(tmp_path, tmp_path)
