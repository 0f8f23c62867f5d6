"""A wrong command line is one sentence, with where the right one is told."""

import subprocess
import sys

import pytest


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wavespark", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["masks", "--batch", "x"], "--batch"),
        (["masks", "--no-such-option"], "--no-such-option"),
        (["no-such-verb"], "no-such-verb"),
        (["masks", "--grid", "two"], "--grid"),
        (["export", "RUN", "--format"], "--format"),
    ],
)
def test_a_wrong_command_line_is_one_line_with_the_way_out(words: list[str], named: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert "--help" in done.stderr or "For example" in done.stderr


def test_a_verb_without_words_shows_its_help_and_is_wrong_usage() -> None:
    done = run("prepare")
    assert done.returncode == 2
    assert "Usage: wavespark prepare" in done.stderr
    assert run().returncode == 2


def test_help_and_version_are_no_errors() -> None:
    assert run("--version").stdout.startswith("wavespark ")
    assert run("masks", "--help").returncode == run("--version").returncode == 0


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    command = f"{sys.executable} -m wavespark masks --grid 40,40,40 --batch 8 --json | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


def test_the_list_tells_every_config_and_recipe_apart() -> None:
    sections = run("list").stdout.split("\n\n")[1:]
    assert len(sections) == 2
    for section in sections:
        titles = [line.split(maxsplit=1)[1] for line in section.splitlines()[1:]]
        assert len(titles) >= 7 and len(set(titles)) == len(titles), titles
