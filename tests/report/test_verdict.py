import json

import pytest

from wavespark.report import headline, judge, read_run, render


def measured(step, loss, **others):
    return {"step": step, "normalised_loss": loss, "inpainting": 0.84, "inpainting_own_mean": 0.71} | others


CASES = {
    "below every baseline": (1.0, 0.6, {}, "yes", "Yes, it learned."),
    "below inpainting, above the harder one": (1.0, 0.8, {}, "yes", "harder baseline"),
    "below the mean, above inpainting": (1.0, 0.86, {}, "partly", "not yet better than inpainting"),
    "hardly below the mean": (1.0, 0.95, {}, "partly", "Only a little"),
    "at the mean": (1.3, 1.0, {}, "no", "No, not yet."),
    "above the mean": (1.3, 1.1, {}, "no", "No, not yet."),
    "risen": (0.7, 0.75, {}, "no", "No, not yet."),
    "without inpainting": (1.0, 0.6, {"inpainting": None, "inpainting_own_mean": None}, "partly", "not measured"),
    "collapsed features": (1.0, 0.6, {"effective_rank": 2.0}, "partly", "collapsed"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_answer_follows_from_the_held_out_numbers(run, save_lines, name):
    before, after, others, learned, words = CASES[name]
    save_lines(run / "validation.jsonl", [measured(0, before, effective_rank=20.0), measured(300, after, **others)])
    verdict = judge(read_run(run))
    assert verdict.learned == learned
    assert words in verdict.title


def test_one_measurement_alone_answers_nothing(run, save_lines):
    save_lines(run / "validation.jsonl", [measured(0, 0.5)])
    assert judge(read_run(run)).learned == "unknown"
    assert "→" not in render(read_run(run))


def test_training_numbers_alone_answer_nothing(run):
    (run / "validation.jsonl").unlink()
    (run / "summary.json").unlink()
    assert judge(read_run(run)).learned == "unknown"


def test_a_run_without_its_validations_is_judged_by_its_summary(run):
    whole = judge(read_run(run))
    (run / "validation.jsonl").unlink()
    assert judge(read_run(run)) == whole


def test_a_rise_after_the_lowest_loss_is_called_overfitting(run, save_lines):
    rows = [measured(0, 1.0), measured(100, 0.5), measured(200, 0.52), measured(300, 0.55)]
    save_lines(run / "validation.jsonl", rows)
    assert any("lowest at step 100" in w for w in judge(read_run(run)).warnings)
    save_lines(run / "validation.jsonl", rows[:3])
    assert not any("lowest" in w for w in judge(read_run(run)).warnings)


def test_steps_without_a_finite_loss_are_counted(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 301, "normalised_loss": NaN}\n{"step": 302}\n')
    assert "2 steps recorded no finite normalised loss." in judge(read_run(run)).warnings


def test_a_run_that_goes_on_is_not_reported_as_finished(run):
    assert not judge(read_run(run)).warnings
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"finished": False}))
    assert "not finished" in " ".join(judge(read_run(run)).warnings)


def test_the_headline_is_json_with_the_numbers_of_the_first_screen(run):
    told = json.loads(json.dumps(headline(read_run(run)), allow_nan=False))
    assert told["learned"] == "yes" and told["finished"] is True and told["step"] == 300
    assert told["normalised_loss"]["last"] < told["inpainting_own_mean"] < told["inpainting"]
    assert told["volumes"] == {"used": 3, "refused": 1}
    assert told["seconds_per_step"] == 0.43
