"""A mistake on the command line is answered in one line, with the next command, before torch is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.small import make_store
from wavespark.config import load_pretraining, to_toml

HEAVY = ("torch", "scipy", "nibabel", "pydicom", "blosc2", "transformers", "monai")
CHILD = f"""
import json, resource, sys
before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
from wavespark.cli.main import run
try:
    run(sys.argv[1:])
except SystemExit as end:
    code = end.code
spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
print(json.dumps([code, spent, [m for m in {HEAVY} if m in sys.modules]]))
"""

REFUSALS = [
    (["pretrain", "tiny-cpu", "--store", "nowhere"], "there is no store in nowhere"),
    (["pretrain", "tiny-cpu", "nowhere"], "--store nowhere"),
    (["pretrain", "tiny-cpuu"], "tiny-cpu"),
    (["pretrain", "tiny-cpu", "run.stepss=10"], "did you mean 'run.steps'"),
    (["pretrain", "tiny-cpu", "data.crop=[8, 8, 8]"], "Use smaller cells or a larger crop"),
    (["pretrain", "tiny-cpu", "model.name=waveformr"], "did you mean 'waveformer_tiny'? Known models: "),
    (["estimate", "tiny-cpu", "data.batch=0"], "data.batch"),
    (["report", "nowhere"], "nowhere: there is no such folder"),
    (["export", "nowhere", "--output", "x"], "nowhere has no checkpoint"),
    (["export", "nowhere", "--output", "x", "--format", "tensorflow"], "use one of wavespark, safetensors"),
    (["import", "nowhere.pt", "--output", "x"], "there is no file nowhere.pt"),
    (["probe", "nowhere", "--labels", "x.csv"], "no encoder in nowhere"),
    (["predict", "nowhere", "scans", "--output", "x"], "nowhere holds no fine-tuned model"),
    (["finetune", "segment", "nowhere", "run.stepss=1"], "did you mean 'run.steps'"),
    (["finetune", "classify", "nowhere", "--labels", "x.csv"], "no encoder in nowhere"),
    (["bench", "step", "--model", "resenc"], "there is no model 'resenc'"),
    (["bench", "transfer", "--task", "bones"], "vessels, tissue, aneurysm"),
    (["prepare", "nowhere", "--output", "x"], "there is nothing at nowhere"),
    (["prepare", ".", "--output", "x", "--table", "nowhere.csv"], "--table: there is no file nowhere.csv"),
    (["prepare", ".", "--output", "x", "--recipe", "head-2mm"], "there is no recipe 'head-2mm'"),
    (["prepare", ".", "--output", "x", "spacing=1"], "did you mean 'spacing_mm'"),
    (["masks", "--grid", "1,1,1"], "Use smaller cells or a larger crop"),
    (["masks", "--ratio", "1.5"], "ratio must be strictly between 0 and 1"),
    (["doctor", "--profile", "newest"], "seed-2025-10"),
    (["quickstart", "--data", "nowhere"], "there is nothing at nowhere"),
]


def refuse(words: list[str], folder: Path) -> tuple[str, int, float, list[str]]:
    """Return (standard error, exit code, user CPU seconds, heavy modules) of one command line."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=folder,
        env=os.environ,
    )
    code, seconds, heavy = json.loads(done.stdout)
    return done.stderr, code, seconds, heavy


@pytest.mark.parametrize(("words", "sentence"), REFUSALS, ids=lambda value: " ".join(value)[:40])
def test_a_wrong_argument_is_refused_within_a_second_without_torch(
    words: list[str], sentence: str, tmp_path: Path
) -> None:
    for _ in range(3):  # a busy machine adds to the CPU time, too
        error, code, seconds, heavy = refuse(words, tmp_path)
        assert sentence in error
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert code in (1, 2)
        assert heavy == []
        assert list(tmp_path.iterdir()) == []
        if seconds < 1:
            return
    pytest.fail(f"took {seconds:.1f} s of CPU time")


@pytest.mark.parametrize(
    ("verb", "missing"),
    [
        (["probe", "encoder", "--column", "sex"], "has no column 'sex'; it has 'age'"),
        (["finetune", "segment", "encoder"], "has no column 'label'; it has 'age'"),
        (["finetune", "classify", "encoder", "--column", "sex"], "has no column 'sex'; it has 'age'"),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_a_wrong_column_of_labels_is_named_without_torch(verb: list[str], missing: str, tmp_path: Path) -> None:
    make_store(tmp_path, ("MR",))
    (tmp_path / "labels.csv").write_text("source,age\nsub-00/sub-00_T1w.nii.gz,40\n")
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    before = sorted(tmp_path.iterdir())
    error, code, _, heavy = refuse([*verb, "--store", "store", "--labels", "labels.csv"], tmp_path)
    assert missing in error
    assert error.count("\n") == 1
    assert (code, heavy) == (2, [])
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_that_began_with_other_settings_is_refused_without_torch(tmp_path: Path) -> None:
    make_store(tmp_path, ("MR",))
    words = ["pretrain", "tiny-cpu", "--store", "store"]
    run = tmp_path / "run"
    (run / "checkpoints" / "step_00000006").mkdir(parents=True)
    (run / "config.toml").write_text(to_toml(load_pretraining("tiny-cpu", ["run.steps=6"]).model_dump()))
    for changed, sentence in (
        (["run.steps=6", "mask.ratio=0.5"], "mask.ratio was 0.6, now 0.5"),
        (["run.steps=4"], "run.steps was 6, now 4 (it may only grow)"),
    ):
        error, code, _, heavy = refuse([*words, *changed], tmp_path)
        assert sentence in error and error.startswith("error: ")
        assert code == 2 and heavy == []


@pytest.mark.parametrize("more", [[], ["--fresh"]], ids=["resumed", "fresh"])
def test_a_file_in_the_place_of_a_run_is_named_without_torch(more: list[str], tmp_path: Path) -> None:
    make_store(tmp_path, ("MR",))
    (tmp_path / "head.mha").write_bytes(b"voxels")
    for output in ("head.mha", "head.mha/run"):
        error, code, _, heavy = refuse(
            ["pretrain", "tiny-cpu", "--store", "store", "--output", output, *more], tmp_path
        )
        assert error == f"error: {output} cannot be made, because a file is in its place: use another --output\n"
        assert code == 1 and heavy == []
    assert (tmp_path / "head.mha").read_bytes() == b"voxels"


def test_a_folder_of_something_else_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years")
    error, code, _, heavy = refuse(["prepare", ".", "--output", "papers"], tmp_path)
    assert (code, heavy) == (1, [])
    assert error == "error: papers is not empty and holds no store: give a new folder as --output\n"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--format", "onnx"], "say which with --modality"),
        (["--format", "wavespark", "--modality", "PET"], "no stem 'PET', it has CT, MR"),
    ],
)
def test_the_input_of_an_export_is_checked_without_torch(more: list[str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints/step_00000001").mkdir(parents=True)
    (tmp_path / "run/exports/encoder").mkdir(parents=True)
    (tmp_path / "run/exports/encoder/config.json").write_text(json.dumps({"stems": {"CT": 3, "MR": 1}}))
    error, code, _, heavy = refuse(["export", "run", "--output", "x", *more], tmp_path)
    assert (code, heavy) == (2, [])
    assert sentence in error and not (tmp_path / "x").exists()
