"""`wavespark masks`: numbers, picture, explanation, and one line for nonsense."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from wavespark.cli import masks
from wavespark.config import load_pretraining
from wavespark.errors import WavesparkError
from wavespark.masking import NestedMasking

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(masks.command)


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_numbers_are_those_of_the_masking():
    document = json.loads(run("--grid", "8,8,8", "--batch", "3", "--json"))
    assert (document["cells"], document["visible"], document["hidden"]) == (1536, 3 * 205, 3 * 307)
    assert (document["global_only"], document["local"]) == (3 * 61, 3 * 246)
    assert document["volumes"] == [{"visible": 205, "hidden": 307, "global_only": 61, "local": 246}] * 3
    assert document["visible_share"] == 205 / 512
    text = run("--grid", "8,8,8", "--batch", "3")
    for number in ("1536", "615", "183", "738", "40.0 %"):
        assert number in text


@pytest.mark.parametrize("words", [
    ["--grid", "1,1,2"], ["--grid", "1,1,300"], ["--grid", "300,1,1"],
    ["--grid", "40,100,2", "--block", "adaptive"], ["--grid", "3x4x5", "--block", "2"],
    ["--grid", "6"], ["--legacy", "--grid", "4,4,4"], ["--legacy", "--grid", "9,9,9"],
])  # fmt: skip
@pytest.mark.parametrize("how", [[], ["--explain"], ["--json"], ["--explain", "--json"]])
def test_every_grid_has_its_numbers_and_picture(words, how):
    output = run(*words, *how)
    if "--json" in how:
        document = json.loads(output)
        assert document["visible"] + document["hidden"] == document["cells"]
        assert document["global_only"] + document["local"] == document["hidden"]
    else:
        assert "slices of the first volume" in output
        assert max(map(len, output.splitlines())) <= 120


def test_the_picture_shows_the_cells_of_the_first_volume():
    output = run("--grid", "2,3,4", "--seed", "5")
    rows = [line.split("  ") for line in output.splitlines()[-3:]]
    drawn = NestedMasking(grid=(2, 3, 4)).sample(draws=[(5, 0, "volume 0")])
    for d in range(2):
        for h in range(3):
            kinds = zip(drawn.visible[0, d, h], drawn.local[0, d, h], strict=True)
            assert rows[h][d] == "".join("·" if visible else "█" if local else "▒" for visible, local in kinds)


def test_the_seed_chooses_the_draw():
    assert run("--seed", "1") == run("--seed", "1") != run("--seed", "2")


def test_A13_explain_legacy_prints_the_seeds_table_and_why_it_is_wrong():
    lines = [" ".join(line.split()) for line in run("--explain", "--legacy").splitlines()]
    assert "2x2x2 4 1x1x1 = 1 max(1, 0.6) = 1 ALL masked" in lines
    assert "4x4x4 4 1x1x1 = 1 max(1, 0.6) = 1 ALL masked" in lines
    assert "8x8x8 4 2x2x2 = 8 max(1, 4.8) = 4 some unmasked: 256 of 512 voxels" in lines
    assert "Batch 2 x 8x8x8 = 1024 voxels, the most frequent draw (42 % of all):" in lines
    for row in ("unmasked 512 50.0 %", "global masked 128 12.5 %", "local masked 384 37.5 %"):
        assert row in lines
    assert any(line.startswith("Why it is wrong") for line in lines)
    rows = json.loads(run("--explain", "--legacy", "--json"))["table"]
    assert [(r["masked_blocks"], r["hides_everything"]) for r in rows] == [(1, True), (1, True), (4, False)]


def test_explain_shows_how_the_counts_come_about():
    text = run("--explain", "--grid", "8,8,8")
    assert "hidden = floor(0.6 * 512 + 0.5) = 307, never fewer than 1 nor more than 511" in text
    assert "local  = floor(0.8 * 307 + 0.5) = 246 of them" in text


@pytest.mark.parametrize("words", [
    ["--grid", "1,1,1"], ["--grid", "0,8,8"], ["--grid", "8,8"], ["--grid", "a"], ["--grid", ""],
    ["--grid", "-1,2,2"], ["--ratio", "0"],
    ["--ratio", "1"], ["--ratio", "nan"], ["--local-ratio", "2"], ["--block", "0"], ["--block", "big"],
    ["--batch", "0"], ["--batch", "-3"], ["--grid", "9999,9999,9999"],
    ["--strict", "--grid", "4,4,4", "--block", "4"],
    ["--output", "picture.pdf"], ["--legacy", "--block", "adaptive"], ["--legacy", "--ratio", "1.5"],
])  # fmt: skip
def test_nonsense_is_refused_in_one_line_with_the_way_out(words):
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, WavesparkError)
    assert result.exception.exit_code == 2
    assert result.stdout == ""
    assert "\n" not in str(result.exception)
    assert len(str(result.exception)) > 40


def test_the_picture_file_is_a_png_of_the_cells(tmp_path):
    pytest.importorskip("matplotlib")
    for number, grid in enumerate(["8,8,8", "1,1,50", "50,2,2"]):
        path = tmp_path / f"{number}.png"
        run("--grid", grid, "--output", str(path))
        assert path.read_bytes().startswith(b"\x89PNG")
    result = CliRunner().invoke(app, ["--output", str(tmp_path / "no folder" / "a.png")])
    assert "No such file" in str(result.exception)


def test_the_verb_loads_torch_only_when_it_is_called():
    heavy = "{'torch', 'matplotlib', 'scipy', 'numpy'}"
    code = f"import sys, wavespark.cli.masks; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_terminal_without_unicode_gets_plain_marks():
    result = CliRunner(charset="ascii").invoke(app, ["--grid", "4,4,4"], catch_exceptions=False)
    assert "#" in result.stdout
    assert result.stdout.isascii()


def test_a_config_shows_what_its_run_hides_at_a_step() -> None:
    words = ["mask.ratio_start=0.25", "mask.ratio=0.75", "mask.ratio_steps=2", "run.seed=9", "objective.second_view=1"]
    plan = load_pretraining("tiny-cpu", words).mask_plan((8, 8, 8))
    document = json.loads(run("tiny-cpu", *words, "--step", "2", "--batch", "3", "--json"))
    assert (document["hidden"], document["cells"], document["second_view"]) == (3 * 256, 3 * 512, 3 * 8)
    assert (document["step"], document["ratio"], document["seed"]) == (2, 0.5, 9)
    assert document["explanation"][1:5] == plan.explain(2)
    text = run("tiny-cpu", *words, "--step", "1")
    assert "Step 1: 128 of 512 cells are hidden" in text and "in the second view" in text


def test_the_picture_of_a_config_shows_the_cells_that_training_hides() -> None:
    rows = [line.split("  ") for line in run("tiny-cpu", "--step", "4", "--batch", "1").splitlines()[-8:]]
    drawn = load_pretraining("tiny-cpu").mask_plan((8, 8, 8)).masks(["volume 0"], 4)
    for d in range(8):
        for h in range(8):
            assert rows[h][d] == "".join("·" if visible else "█" for visible in drawn.visible[0, d, h])


def test_a_config_that_is_not_there_is_refused() -> None:
    with pytest.raises(WavesparkError, match="tiny-cpu"):
        run("tiny-gpu")
