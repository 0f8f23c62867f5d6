"""The bench of loading measures what it says, made small."""

import json

import pytest

from wavespark.bench import loader as bench
from wavespark.bench.loader import LoaderBench, describe_loader, measure_loader
from wavespark.errors import SettingsError


def test_every_form_is_measured_beside_the_step(monkeypatch):
    monkeypatch.setattr(bench, "SHAPE", (48, 56, 44))
    monkeypatch.setattr(bench, "HEADS", 1)
    monkeypatch.setattr(bench, "FORMS", {form: bench.FORMS[form] for form in ("as stored", "strong")})
    monkeypatch.setattr(bench, "seconds_per_step", lambda settings, store: 2.0)
    document = measure_loader(LoaderBench(size=24, workers=1, crops=32, rounds=1))
    assert json.loads(json.dumps(document)) == document
    stored, strong = document["results"]
    assert stored["crops_a_second"] > 0 and strong["user_seconds_a_crop"] > stored["user_seconds_a_crop"]
    edge = document["step"]["crop"]
    per_step = strong["user_seconds_a_crop"] * document["step"]["crops"] * edge[0] * edge[1] * edge[2] / 24**3
    assert strong["share_of_a_step"] == pytest.approx(per_step / 2.0)
    assert document["met"] == (stored["crops_a_second"] >= bench.TARGET and strong["share_of_a_step"] < 1)
    assert document["command"] in "\n".join(describe_loader(document))


def test_too_few_crops_to_measure_are_refused():
    with pytest.raises(SettingsError, match=r"--crops 8: at least 32"):
        LoaderBench(crops=8)
