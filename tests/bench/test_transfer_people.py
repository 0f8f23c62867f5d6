"""The transfer benchmark on people: a tiny folder of synthetic ones, end to end; parts are kept, people are never on both sides."""

import csv
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from downstream.labelled import fresh_encoder
from engine.small import head_voxels
from wavespark.bench import people_arms
from wavespark.bench.people_arms import OURS, SCRATCH, make_row, mean_dice, score_figure
from wavespark.bench.transfer_people import SOURCES, PeopleBench, check_people, measure_people
from wavespark.bench.transfer_people_page import people_lines, people_page, shown, verdict
from wavespark.cli.main import run as command_line
from wavespark.engine import export_run
from wavespark.errors import SettingsError
from wavespark.metrics.scores import patient_weights
from wavespark.prepare import Recipe

SHAPE = (24, 28, 20)


def write_image(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 1.5, 1.0])), path)


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def head(seed: int) -> np.ndarray:
    return head_voxels(seed, shape=SHAPE).astype(np.int16)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    tables: dict[str, list[dict[str, object]]] = {"ds002748": [], "ds000011": [], "slabs": []}
    for k in range(6):
        name = f"sub-{k:02d}_T1w.nii.gz"
        write_image(folder / "ds002748" / name, head(k))
        tables["ds002748"].append({"source": name, "age": 20 + 7 * k, "sex": "mf"[k % 2], "group": ["a", "b"][k // 3]})
    for k in range(2):
        for contrast in ("T1w", "T2w"):
            name = f"sub-{k:02d}_{contrast}.nii.gz"
            write_image(folder / "ds000011" / name, head(10 + k) if contrast == "T1w" else (400 - head(10 + k)).clip(0))
        tables["ds000011"].append({"source": f"sub-{k:02d}_T1w.nii.gz", "age": 30 + k, "sex": "mf"[k]})
    for k in range(4):
        voxels = head(20 + k)
        write_image(folder / "slabs" / f"slab-{k:02d}_T1w.nii.gz", voxels)
        write_image(
            folder / "slabs" / "labels" / f"slab-{k:02d}.nii.gz", np.digitize(voxels, (140, 165)).astype(np.uint8)
        )
        tables["slabs"].append({"source": f"slab-{k:02d}_T1w.nii.gz", "label": f"labels/slab-{k:02d}.nii.gz"})
    for name, rows in tables.items():
        write_rows(folder / name / ("labels.csv" if name == "slabs" else "participants.csv"), rows)
    return folder


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe.from_settings({"name": "people", "spacing_mm": 1.5})
    path = tmp_path_factory.mktemp("export") / "encoder"
    provenance = {"steps": 0, "volumes": 4, "normalised_loss": 1.0, "crop": [16, 16, 16], "hidden_ratio": 0.6}
    preparation = {"fingerprint": recipe.fingerprint, "settings": recipe.settings}
    export_run(path, fresh_encoder(), name="waveformer_tiny", preparation=preparation, provenance=provenance)
    return path


def test_the_benchmark_runs_on_a_given_encoder_and_a_second_call_computes_nothing(
    people: Path, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people_arms, "_LABELLED_DRAWS", 1)
    bench = PeopleBench(people=people, encoder=export, quick=True, labels=(1, 2), test_people=2)
    messages: list[str] = []
    document = measure_people(bench, tmp_path / "out", lambda done, total, message="": messages.append(message))
    rows = {(r["task"], r["mode"], r["labels"]): r for r in document["results"]}
    assert set(rows) == {
        *((task, "frozen", None) for task in ("sex", "age", "group", "contrast")),
        *(("tissue", mode, n) for mode in ("frozen", "fine-tuned") for n in (1, 2)),
    }
    assert set(rows["age", "frozen", None]["arms"]) == {"pre-trained", "scratch", "intensities", "volume", "constant"}
    assert set(rows["tissue", "frozen", 1]["arms"]) == {"pre-trained", "scratch", "intensities"}
    assert set(rows["tissue", "fine-tuned", 2]["arms"]) == {"pre-trained", "scratch", "plain"}
    assert rows["age", "frozen", None]["figure"] == "mae"
    assert rows["contrast", "frozen", None]["people"] == 2
    assert document["pretraining"] == []
    assert any("fine-tuned" in m for m in messages) and any("age" in m for m in messages)
    assert "<table" in (tmp_path / "out" / "people.html").read_text(encoding="utf-8")
    assert "Smoke run" in "\n".join(people_lines(document))
    assert str(people) not in json.dumps(document)

    def refused(*args: object, **more: object) -> None:
        raise RuntimeError("computed again")

    for name in ("bench.people_arms.store_features", "bench.people_arms.fit_voxel_probe", "downstream.study.fit"):
        monkeypatch.setattr(f"wavespark.{name}", refused)
    assert measure_people(bench, tmp_path / "out")["results"] == document["results"]
    with pytest.raises(SettingsError, match="another seed"):
        measure_people(
            PeopleBench(people=people, encoder=export, quick=True, labels=(1, 2), test_people=2, seed=1),
            tmp_path / "out",
        )


def test_people_of_the_contrast_question_are_in_one_fold_with_all_their_images(people: Path, tmp_path: Path) -> None:
    from wavespark.bench.transfer_people import _Clock, _store

    store = _store(people / "ds000011", tmp_path, _Clock(1, lambda done, total, message="": None))
    found = people_arms._contrasts(store, people / "ds000011")
    assert sorted((person, contrast) for _, person, contrast in found) == [
        ("ds000011 sub-00", "T1"), ("ds000011 sub-00", "T2"), ("ds000011 sub-01", "T1"), ("ds000011 sub-01", "T2"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", list(SOURCES))
def test_a_missing_set_is_named_with_the_place_that_it_comes_from(people: Path, tmp_path: Path, name: str) -> None:
    for other in SOURCES:
        if other != name:
            (tmp_path / other).symlink_to(people / other)
    with pytest.raises(SettingsError, match=SOURCES[name].split(" ")[0]) as refused:
        check_people(tmp_path)
    assert f"there is no {name}/" in str(refused.value)


@pytest.mark.parametrize(
    "wrong", [{"minutes": 0}, {"labels": ()}, {"seeds": 0}, {"test_people": 1}, {"pretraining_seeds": 2}]
)
def test_settings_that_cannot_be_are_refused(people: Path, export: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        PeopleBench(people=people, encoder=export, **wrong)  # type: ignore[arg-type]


def constant(value: float):
    return {"dice": score_figure([value] * 6)}


def test_a_gain_is_over_the_mean_of_the_random_weights_and_has_an_interval_over_pretrainings() -> None:
    figures = {
        (OURS, 0): constant(0.7),
        (OURS, 1): constant(0.8),
        (SCRATCH, 0): constant(0.5),
        (SCRATCH, 1): constant(0.6),
    }
    row = make_row("tissue", "frozen", 1, figures, patient_weights(range(6), draws=50), 6)
    assert row["gains"][SCRATCH]["dice"]["value"] == pytest.approx(0.2)
    over = row["over_pretrainings"][SCRATCH]
    assert (over["value"], over["pretrainings"]) == (pytest.approx(0.2), 2)
    assert over["high"] - over["value"] == pytest.approx(12.706 * math.sqrt(0.005) / math.sqrt(2), rel=1e-3)


def row_with(low: float, high: float) -> dict[str, object]:
    gain = {"dice": {"value": (low + high) / 2, "low": low, "high": high, "patients": 6}}
    arm = {"dice": {"value": 0.5, "low": 0.4, "high": 0.6, "patients": 6}}
    arms, about = {"pre-trained": arm, "scratch": arm}, {"task": "tissue", "mode": "frozen", "labels": 1, "people": 6}
    return {**about, "figure": "dice", "arms": arms, "gains": {"scratch": gain}}


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (0.01, 0.1, "zero: tissue, frozen, 1 labelled over random weights"),
        (-0.1, -0.01, "Worse: tissue"),
        (-0.1, 0.1, "nowhere. No difference shown in 1 of 1"),
    ],
)
def test_the_verdict_says_where_the_interval_lies(low: float, high: float, sentence: str) -> None:
    assert sentence in verdict([row_with(low, high)])


def test_the_page_shows_every_arm_and_loads_nothing() -> None:
    run = {"seed": 3, "steps": 9, "volumes": 28, "normalised_loss": [1.0, 0.5], "harmonic_inpainting": None}
    document = {
        "what": "tiny",
        "quick": False,
        "pretraining": [run],
        "results": [row_with(0.01, 0.1)],
        "minutes": 1,
        "command": "c",
    }
    text = str(people_page(document))
    assert "random weights" in text and "+0.055 [+0.010, +0.100]" in text and "9 steps on 28 volumes" in text
    assert "http" not in text.replace("http-equiv", "")
    assert shown(None) == "-"


def test_mean_dice_is_over_the_classes_that_occur() -> None:
    truth = np.array([0, 1, 1, 2])
    assert mean_dice(np.array([0, 1, 2, 2]), truth, 4) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert math.isnan(mean_dice(np.zeros(4), np.zeros(4), 3))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--quick",), "--quick belongs to the benchmark on real people"),
        (("--people", "nowhere"), "there is no ds002748/participants.csv"),
    ],
)
def test_the_command_line_refuses_what_cannot_be_measured(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command_line(["bench", "transfer", *words])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err
