"""Every command that README and documents show is one that wavespark takes; those of README and tutorial are run, word for word but for their size."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from docs.blocks import PAGES, ROOT, bash_lines, wavespark_words

SHOWN = [(page, words) for page in PAGES for line in bash_lines(page) if (words := wavespark_words(line)) is not None]
SMALLER = {
    "run.steps=2000": [
        "run.steps=4",
        "data.crop=[32,32,32]",
        "data.batch=2",
        "run.held_out_crops=2",
        "decoder.widths=[32,16]",
        "run.validate_every=4",
        "data.workers=0",
    ],
}


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=[f"{p.name}: {' '.join(w)[:60]}" for p, w in SHOWN])
def test_a_command_that_is_shown_is_one_that_is_taken(page: Path, words: list[str]) -> None:
    from wavespark.cli.main import app

    group = typer.main.get_command(app)
    if words[0].startswith("-"):
        return
    assert words[0] in group.commands, f"{page.name} shows a verb that is not built"
    with group.make_context("wavespark", [words[0]], resilient_parsing=True) as context:
        group.commands[words[0]].make_context(words[0], words[1:], parent=context)


def test_the_words_for_smaller_runs_still_stand_in_the_documents() -> None:
    used = {w for _, words in SHOWN for w in words}
    assert set(SMALLER) <= used


def _mr_and_ct(folder: Path) -> None:
    """Four coarse heads as DICOM series, as a folder of one's own would hold them."""
    from wavespark.samples.files import write_dicom
    from wavespark.samples.heads import synthetic_head

    for seed, contrast in enumerate(("TOF-MRA", "TOF-MRA", "CTA", "CTA")):
        head = synthetic_head(seed, contrast, shape=(64, 64, 40), spacing=(2.5, 2.5, 4.0))
        identifiers = {"PatientID": f"P{seed}", "PatientName": f"DOE^{seed}"}
        write_dicom(head, folder / f"patient-{seed}", identifiers=identifiers)


def _lines(page: str, *verbs: str) -> list[list[str]]:
    found = [w for p, w in SHOWN if p == ROOT / page]
    return [w for w in found if w[0] in verbs]


def test_the_commands_of_readme_and_tutorial_run_on_a_folder_of_ones_own(tmp_path: Path) -> None:
    _mr_and_ct(tmp_path / "MY_FOLDER")
    lines = _lines("README.md", "prepare", "inspect", "pretrain", "report", "export")
    lines += [
        w
        for w in _lines("docs/tutorial/own-data.md", "prepare", "inspect", "pretrain", "report", "export")
        if w not in lines
    ]
    assert {w[0] for w in lines} == {"prepare", "inspect", "pretrain", "report", "export"}
    for words in lines:
        small = [part for w in words for part in SMALLER.get(w, [w])]
        command = [sys.executable, "-m", "wavespark", *small]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    assert (tmp_path / "run/report.html").exists()
    assert (tmp_path / "encoder/model.safetensors").exists()


@pytest.mark.slow
def test_the_sharded_preparation_of_the_cluster_page_makes_the_same_store(tmp_path: Path) -> None:
    _mr_and_ct(tmp_path / "MY_FOLDER")
    shown = next(w for w in _lines("docs/tutorial/cluster.md", "prepare") if "--shard" in w)
    assert shown[-1] == "1/8"
    for k in range(1, 9):
        command = [sys.executable, "-m", "wavespark", *shown[:-1], f"{k}/8", "--workers", "1"]
        subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=True)
    assert len((tmp_path / "store/manifest.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_the_first_run_of_the_tutorial_runs(tmp_path: Path) -> None:
    for words in _lines("docs/tutorial/first-run.md", "quickstart", "inspect", "masks"):
        minutes = ["--minutes", "1"] if words[0] == "quickstart" else []
        command = [sys.executable, "-m", "wavespark", *words, *minutes]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, (words, done.stderr[-2000:])
    python = (ROOT / "docs/tutorial/first-run.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    subprocess.run([sys.executable, "-c", python], cwd=tmp_path, check=True, timeout=120)
