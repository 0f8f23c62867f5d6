import json

import typer
from typer.testing import CliRunner

from wavespark.cli import report
from wavespark.errors import InputError

app = typer.Typer()
app.command()(report.command)


def test_the_verb_says_whether_it_learned_and_where_the_page_is(run):
    result = CliRunner().invoke(app, [str(run)])
    assert result.exit_code == 0, result.output
    assert "Yes, it learned." in result.stdout and f"report: {run / 'report.html'}" in result.stdout
    assert (run / "report.html").exists()


def test_with_json_there_is_one_document_with_path_and_numbers(run):
    result = CliRunner().invoke(app, [str(run), "--json"])
    told = json.loads(result.stdout)
    assert told["report"] == str(run / "report.html") and told["learned"] == "yes"
    assert told["normalised_loss"]["first"] > told["normalised_loss"]["last"]


def test_with_json_a_run_that_has_measured_nothing_is_still_json(run):
    for name in ("validation.jsonl", "summary.json", "data.json"):
        (run / name).unlink()
    (run / "metrics.jsonl").write_text('{"step": 1, "normalised_loss": NaN, "seconds": Infinity}\n')
    told = json.loads(CliRunner().invoke(app, [str(run), "--json"]).stdout)
    assert told["learned"] == "unknown" and told["seconds_per_step"] is None


def test_a_folder_that_is_no_run_is_an_error_of_our_own(tmp_path):
    result = CliRunner().invoke(app, [str(tmp_path)])
    assert isinstance(result.exception, InputError)
