"""The transfer benchmark: its synthetic heads are disjoint, its verdict is about the lower bound, and (slow) it runs end to end and goes on where it was."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from wavespark.bench import transfer
from wavespark.bench.transfer import TransferBench, _brain_blocks, _rows, _settings, measure_transfer
from wavespark.bench.transfer_page import transfer_page
from wavespark.cli.main import run as command_line
from wavespark.errors import DependencyError, SettingsError
from wavespark.samples import mni152_brain


def interval(value: float | None, low: float | None, high: float | None) -> dict[str, float | int | None]:
    return {"value": value, "low": low, "high": high, "patients": 8}


def results(low: float) -> dict[str, object]:
    table = [
        {
            "arm": arm,
            "labels": n,
            "figures": {"dice": interval(0.3 + 0.1 * (arm == "pre-trained") + 0.01 * n, 0.2, 0.5)},
        }
        for n in (1, 2)
        for arm in ("pre-trained", "scratch")
    ]
    gains = [{"labels": n, "figures": {"dice": interval(0.1, low, 0.2)}} for n in (1, 2)]
    numbers = {"steps": 9, "seeds": 3, "test_volumes": 8, "test_patients": 8, "frozen": True, "decoder": "linear"}
    return {"main": "dice", "table": table, "gains": gains, "task": {"kind": "segment"}, **numbers}


def test_a_gain_counts_where_its_lower_bound_is_above_zero() -> None:
    assert all(r["above_zero"] for r in _rows("vessels", "frozen", results(0.01)))
    assert not any(r["above_zero"] for r in _rows("vessels", "frozen", results(-0.01)))
    (row, _) = _rows("vessels", "frozen", results(0.01))
    assert row["pretrained"] - row["scratch"] == pytest.approx(row["gain"]["value"])


def test_the_page_says_whether_the_target_was_met_and_loads_nothing() -> None:
    head = {"steps": 5, "normalised_loss": [1.0192368, 0.9], "harmonic_inpainting": 0.8}
    document = {"what": "tiny", "target": "better", "met": False, "pretraining": head}
    page = transfer_page(document, {"vessels, frozen": results(0.01)})
    assert "<b>missed</b>" in page
    assert page.count("<svg") == 1
    assert "1.019 to 0.900 (1 = predicting the mean; harmonic inpainting 0.800)" in page
    assert "one brain" not in page and "one brain" in transfer_page(document, {"tissue, frozen": results(0.01)})
    assert "http:" not in page and "https:" not in page
    assert "<script" not in page


def test_both_arms_have_the_same_budget_and_only_frozen_features_are_read_linearly() -> None:
    frozen, tuned = (_settings(TransferBench(), mode, 40) for mode in transfer.MODES)
    assert (frozen.frozen, frozen.decoder, tuned.frozen, tuned.decoder) == (True, "linear", False, "light")
    assert frozen.run.steps == tuned.run.steps == 40
    assert TransferBench().trainings == 3 * 2 * 2 * 4 * 3


@pytest.mark.parametrize("wrong", [{"tasks": ("noses",)}, {"minutes": 0}, {"labels": ()}, {"test_heads": 1}, {"aneurysm_heads": 1}])
def test_a_benchmark_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        TransferBench(**wrong)  # type: ignore[arg-type]


def test_synthetic_heads_to_learn_from_and_to_test_on_are_never_the_same() -> None:
    most = 200
    starts = sorted((transfer._FIRST_PRETRAINED, transfer._FIRST_TRAIN, transfer._FIRST_TEST))
    assert all(b - a > most for a, b in pairwise(starts))


def test_blocks_of_the_brain_are_parts_of_it_with_its_tissue() -> None:
    try:
        mni152_brain()
    except DependencyError as missing:
        pytest.skip(str(missing))
    blocks = _brain_blocks()
    assert len(blocks) >= 10
    for voxels, tissue, affine in blocks:
        assert voxels.shape == tissue.shape == (48, 48, 48)
        assert set(np.unique(tissue)) <= {0, 1, 2}
        assert np.linalg.det(affine[:3, :3]) > 0.9
        assert (voxels[tissue > 0] > 0).mean() > 0.99
    corners = {tuple(a[:3, 3]) for _, _, a in blocks}
    assert len(corners) == len(blocks)


def test_the_command_measures_the_same_again():
    assert TransferBench().command == "wavespark bench transfer --minutes 50 --seeds 3 --seed 0"
    some = TransferBench(minutes=1.5, tasks=("tissue", "aneurysm"))
    assert some.command == "wavespark bench transfer --minutes 1.5 --seeds 3 --seed 0 --task tissue --task aneurysm"


def test_the_command_line_prints_every_row_and_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head = {"steps": 5, "normalised_loss": [1.0, 0.9], "harmonic_inpainting": 0.8}
    monkeypatch.setattr(transfer, "_data", lambda *args: ([], []))
    monkeypatch.setattr(transfer, "_pretraining_store", lambda *args: [None] * 24)
    monkeypatch.setattr(transfer, "_pretrained", lambda *args: (None, head))
    monkeypatch.setattr(
        transfer, "_compared", lambda bench, task, mode, *rest: results(0.01 if mode == "frozen" else -0.01)
    )
    with pytest.raises(SystemExit) as stopped:
        command_line(
            [
                "bench",
                "transfer",
                "--minutes",
                "3",
                "--seed",
                "5",
                "--folder",
                str(tmp_path),
                "--output",
                str(tmp_path / "copy.json"),
            ]
        )
    assert not stopped.value.code
    out = capsys.readouterr().out
    assert out.count(" frozen  ") == out.count(" fine-tuned ") == 6
    assert "interval above zero: met" in out
    assert "again: wavespark bench transfer --minutes 3 --seeds 3 --seed 5" in out
    assert json.loads((tmp_path / "copy.json").read_text()) == json.loads((tmp_path / "transfer.json").read_text())
    assert (tmp_path / "transfer.html").read_text().count("<svg") == 6


@pytest.mark.slow
def test_the_benchmark_runs_and_a_second_call_takes_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = TransferBench(
        minutes=0.5, seeds=1, labels=(1, 2), test_heads=2, aneurysm_heads=2, pretraining_heads=5, tasks=("vessels", "aneurysm")
    )
    document = measure_transfer(bench, tmp_path)
    assert {(r["task"], r["mode"], r["labels"]) for r in document["results"]} == {
        (t, m, n) for t in bench.tasks for m in transfer.MODES for n in bench.labels
    }
    assert json.loads((tmp_path / "transfer.json").read_text())["results"] == document["results"]
    assert "<svg" in (tmp_path / "transfer.html").read_text()

    def refused(*args: object, **more: object) -> None:
        raise RuntimeError("made again")

    for again in (
        "wavespark.downstream.study.fit",
        "wavespark.bench.transfer.fit",
        "wavespark.engine.learning.update.Updater.__call__",
    ):
        monkeypatch.setattr(again, refused)
    assert measure_transfer(bench, tmp_path)["results"] == document["results"]
