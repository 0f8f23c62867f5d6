"""From an encoder and a few labels to figures, through the command line: probe, fine-tune, predict, evaluate, export."""

import json
import shutil
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from downstream.labelled import WORDS, Small, make_small, write_table
from prepare import trees
from wavespark.cli.main import run as command_line
from wavespark.downstream import load_model
from wavespark.engine import export_run
from wavespark.models import create_model
from wavespark.prepare import open_store
from wavespark.rsna import LABELS, Predictor


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("journey"), patients=5)


@pytest.fixture(scope="module")
def tuned(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("tuned") / "run"
    code = call(
        "finetune", "segment", str(small.encoder), *WORDS, "run.steps=30", "optimizer.learning_rate=1e-2", "--store", str(small.store.path),
        "--labels", str(small.labels), "--output", str(output), "--no-control", "--no-plain",
    )  # fmt: skip
    assert code == 0
    return output


def call(*words: str) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as stopped:
        command_line(list(words))
    return int(stopped.value.code or 0)


def test_probe_tells_kinds_apart_and_shows_the_control(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "probe",
        str(small.encoder),
        "--store",
        str(small.store.path),
        "--labels",
        str(small.labels),
        "--column",
        "kind",
    )
    assert call(*words, "--level", "-1", "--tile", "16", "--repeats", "2") == 0
    out = capsys.readouterr().out
    assert "even 3, odd 2" in out
    assert "random weights" in out and "histogram + volume" in out and "no features" in out
    assert call(*words, "--repeats", "1", "--json") == 0
    (report,) = json.loads(capsys.readouterr().out)["probes"]
    assert {(r["encoder"], r["level"], r["probe"]) for r in report["rows"]} == {
        *((e, n, p) for e in ("pre-trained", "scratch") for n in (0, 1, -1) for p in ("knn", "linear")),
        *((e, None, p) for e in ("intensities", "volume") for p in ("knn", "linear")),
        ("constant", None, "majority"),
    }
    assert all("low" in r["gain"] for r in report["rows"] if r["encoder"] == "pre-trained")
    assert call(*words[:-1], "nose") == 2
    assert "no column 'nose'" in capsys.readouterr().err


def test_a_fine_tuned_model_predicts_on_the_grid_of_the_source_and_is_scored_there(
    small: Small, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = small.labels.parent / "data"
    source = data / "sub-00" / "sub-00_T2w.nii.gz"
    turned = tmp_path / "in" / "sub-00" / "sub-00_T2w.nii.gz"  # stored with axes exchanged and mirrored, as scanners do
    turned.parent.mkdir(parents=True)
    nib.save(nib.load(source).slicer[::-1].as_reoriented([[1, 1], [0, -1], [2, 1]]), turned)  # type: ignore[attr-defined]
    assert call("predict", str(tuned), str(tmp_path / "in"), "--output", str(tmp_path / "out")) == 0
    (name,) = (tmp_path / "out").glob("*.nii.gz")
    found, given = nib.load(name), nib.load(turned)
    assert found.shape == given.shape  # type: ignore[attr-defined]
    np.testing.assert_allclose(found.affine, given.affine, atol=1e-4)  # type: ignore[attr-defined]
    assert "sub-00" not in name.name
    assert b"sub-00" not in (tmp_path / "out" / "predictions.json").read_bytes()
    truth = nib.load(small.labels.parent / "maps" / "0.nii.gz")
    nib.save(truth.slicer[::-1].as_reoriented([[1, 1], [0, -1], [2, 1]]), tmp_path / "truth.nii.gz")  # type: ignore[attr-defined]
    labels = write_table(tmp_path / "l.csv", [{"source": "sub-00/sub-00_T2w.nii.gz", "label": "truth.nii.gz"}])
    capsys.readouterr()
    assert call("evaluate", str(tmp_path / "out"), "--labels", str(labels), "--json") == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    a, b = np.asarray(found.dataobj) > 0, np.asarray(nib.load(tmp_path / "truth.nii.gz").dataobj) > 0  # type: ignore[attr-defined]
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.5  # it learned, and it lies where it should
    assert figures["dice"]["value"] > 0.2
    assert figures["dice"]["low"] is None  # one patient has no interval
    assert {"hd95_mm", "surface_dice", "dice_1", "dice_2"} <= set(figures)


def test_evaluation_on_the_store_agrees_with_the_comparison(
    small: Small, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("predict", str(tuned), "--store", str(small.store.path), "--output", str(tmp_path / "out")) == 0
    capsys.readouterr()
    assert (
        call(
            "evaluate", str(tmp_path / "out"), "--store", str(small.store.path), "--labels", str(small.labels), "--json"
        )
        == 0
    )
    rows = {r["volume"]: r["scores"]["dice"] for r in json.loads(capsys.readouterr().out)["rows"]}
    (part,) = (tuned / "parts").iterdir()
    tested = json.loads(part.read_text())["rows"]
    assert tested
    for row in tested:
        assert rows[row["volume"]] == pytest.approx(row["scores"]["dice"], abs=0.05)


def test_a_bundle_of_a_fine_tuned_model_runs_with_monais_sliding_window(tuned: Path, tmp_path: Path) -> None:
    assert call("export", str(tuned), "--format", "monai", "--output", str(tmp_path / "bundle")) == 0
    network = json.loads((tmp_path / "bundle/configs/inference.json").read_text())["network_def"]
    from wavespark.downstream.bundle import bundle_network

    model = bundle_network(network["config"], network["modality"]).eval()
    model.load_state_dict(torch.load(tmp_path / "bundle/models/model.pt", weights_only=True))
    voxels = torch.randn(1, 1, 24, 20, 16, generator=torch.Generator().manual_seed(0))
    found = load_model(tuned, "cpu")
    with torch.no_grad():
        assert torch.equal(model(voxels), found.model(voxels, modality="MR"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inferers = pytest.importorskip("monai.inferers")
        with torch.no_grad():
            theirs = inferers.SlidingWindowInferer((16, 16, 16), 1, 0.5, "gaussian")(voxels, model)[0]
    from wavespark.downstream import sliding_window

    with torch.no_grad():
        ours = sliding_window(voxels[0], (16, 16, 16), model, overlap=0.5, batch=1)
    assert (ours - theirs).abs().max() < 1e-4
    assert call("export", str(tuned), "--format", "nnunet", "--output", str(tmp_path / "x")) == 1


def test_three_arms_are_named_in_the_table_and_the_classes_by_their_names(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--store", str(small.store.path), "--labels", str(small.labels), "--output", str(tmp_path / "run"))
    settings = (*WORDS, "run.steps=1")
    assert call("finetune", "segment", str(small.encoder), *settings, *words, "--classes", "1=bright,2=brighter") == 0
    out, err = capsys.readouterr()
    assert "Dice bright" in out and "Dice brighter" in out and "dice_1" not in out
    for arm in ("pre-trained", "scratch", "plain", "minus scratch", "minus plain"):
        assert any(line.split("  ")[1].strip() == arm for line in out.splitlines() if line.startswith("  ")), arm
    assert "learning rates: pre-trained" in err
    capsys.readouterr()
    assert call("finetune", "segment", str(small.encoder), *settings, *words, "--classes", "1:bright") == 2
    assert "is not NUMBER=NAME" in capsys.readouterr().err


def test_a_number_is_learned_and_compared_with_the_mean(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--store", str(small.store.path), "--labels", str(small.labels), "--column", "Left A")
    settings = (*WORDS, "run.steps=1")
    assert call("finetune", "regress", str(small.encoder), *settings, *words, "--output", str(tmp_path / "run")) == 0
    out = capsys.readouterr().out
    assert "mae" in out and "mae_of_mean" in out and "minus plain" in out
    assert call("finetune", "regress", str(small.encoder), *settings, *words[:-1], "kind") == 2
    assert "must hold a finite number or nothing" in capsys.readouterr().err


def test_points_are_found_in_millimetres_of_the_patient(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--store", str(small.store.path), "--labels", str(small.points), "--output", str(tmp_path / "run"))
    assert call("finetune", "detect", str(small.encoder), *WORDS, *words) == 0
    assert "sensitivity" in capsys.readouterr().out
    assert (
        call("predict", str(tmp_path / "run"), "--store", str(small.store.path), "--output", str(tmp_path / "out")) == 0
    )
    lines = (tmp_path / "out" / "points.csv").read_text().splitlines()
    assert lines[0] == "id,x,y,z,i,j,k,score"
    x, y, z, i, j, k = (float(v) for v in lines[1].split(",")[1:7])
    assert (x, y, z) == pytest.approx((i, j, k), abs=0.02)  # the sources have 1 mm voxels from the origin
    capsys.readouterr()
    assert (
        call(
            "evaluate", str(tmp_path / "out"), "--store", str(small.store.path), "--labels", str(small.points), "--json"
        )
        == 0
    )
    assert set(json.loads(capsys.readouterr().out)["figures"]) == {"sensitivity"}


def test_a_folder_of_the_challenge_becomes_a_predictor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees.rsna(tmp_path / "data")
    for file in (tmp_path / "data" / "series").rglob("*.dcm"):
        ds = pydicom.dcmread(file)
        ds.PatientID = f"patient of {file.parent.name}"
        ds.save_as(file)
    words = ("--output", str(tmp_path / "store"), "--workers", "1", "spacing_mm=5.0")
    assert call("prepare", str(tmp_path / "data"), *words) == 0
    store = open_store(tmp_path / "store")
    encoder = create_model("waveformer_tiny", stems={"CT": 3, "MR": 1}, channels=(12, 24), depths=(1, 1), heads=(1, 2))
    preparation = {"fingerprint": store.recipe.fingerprint, "settings": store.recipe.settings}
    provenance = {"steps": 0, "volumes": 3, "normalised_loss": 1.0, "crop": [16, 16, 16], "hidden_ratio": 0.6}
    export_run(tmp_path / "encoder", encoder, name="waveformer_tiny", preparation=preparation, provenance=provenance)
    words = ("finetune", "classify", str(tmp_path / "encoder"), *WORDS, "--store", str(tmp_path / "store"), "--output")
    assert call(*words, str(tmp_path / "run")) == 0  # labels, points and vessels are those of the store
    task = load_model(tmp_path / "run").task.describe()
    assert tuple(task["names"]) == LABELS
    predictor = Predictor(tmp_path / "run", "cpu")
    for series in (tmp_path / "data" / "series").iterdir():
        assert predictor(series).reason is None
    shutil.rmtree(tmp_path / "data" / "series" / "1.2.826.1")
    assert predictor(tmp_path / "data" / "series" / "1.2.826.1").reason == "no_input"
    assert (
        call("predict", str(tmp_path / "run"), "--store", str(tmp_path / "store"), "--output", str(tmp_path / "out"))
        == 0
    )
    capsys.readouterr()
    labels = write_table(
        tmp_path / "l.csv",
        [{"SeriesInstanceUID": u, **dict.fromkeys(LABELS, int(u == "1.2.826.2"))} for u in ("1.2.826.2", "1.2.826.3")],
    )
    assert (
        call("evaluate", str(tmp_path / "out"), "--store", str(tmp_path / "store"), "--labels", str(labels), "--json")
        == 0
    )
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert 0 <= figures["rsna"]["value"] <= 1
    assert f"auc {LABELS[-1]}" in figures
