"""The documents build without a warning, and what they name is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.blocks import PAGES, ROOT

TEXTS = [*PAGES, *sorted((ROOT / "docs/design").glob("*.md")), ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md"]


def test_the_site_builds_without_a_warning_and_its_generated_pages_are_full(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "-f",
        str(ROOT / "mkdocs.yml"),
        "-d",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=_environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = lambda name: (tmp_path / "site" / name / "index.html").read_text(encoding="utf-8")  # noqa: E731
    assert all(f'id="{verb}"' in page("reference/cli") for verb in ("doctor", "prepare", "pretrain", "bench"))
    assert "run.checkpoint_every" in page("reference/settings")
    assert "foreground.margin_mm" in page("reference/settings")
    assert "Crops per step, over all processes" in page("reference/settings"), "what a key is stands beside it"
    assert "waveformer_tiny" in page("reference/models")
    assert "head-1mm" in page("reference/recipes")
    assert "NestedMasking" in page("reference/api")
    assert "bench step" in page("reference/benchmarks")


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "NO_MKDOCS_2_WARNING": "1"}


def test_the_site_asks_nobody_else_for_anything() -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in settings
    assert "http" not in settings.split("site_description")[0] + settings.split("nav:")[1]


@pytest.mark.parametrize("page", TEXTS, ids=lambda p: p.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|docs|tools|docker|benchmarks|src|\.ci|\.devcontainer)/[\w./{},*-]+)`", text)
    gone = [n for n in named if not set("*{") & set(n) and not (ROOT / n.rstrip("/")).exists()]
    assert not gone


def test_recipes_that_pages_name_come_with_the_package() -> None:
    there = {p.stem for room in ("recipes", "configs") for p in (ROOT / "src/wavespark" / room).glob("*.toml")}
    for page in PAGES:
        for name in re.findall(
            r"(?:--recipe|wavespark pretrain) ([a-z0-9-]+)\b(?!\.toml)", page.read_text(encoding="utf-8")
        ):
            assert name in there, f"{page.name} names the recipe {name}"


def test_every_law_and_flaw_that_the_seed_page_names_has_its_test_file() -> None:
    text = (ROOT / "docs/explanation/seed.md").read_text(encoding="utf-8")
    files = re.findall(r"\| `(tests/[\w./]+)` \|", text)
    assert len(files) > 15
    assert all((ROOT / f).exists() for f in files), [f for f in files if not (ROOT / f).exists()]
