"""The bench of preparation measures what it says, made small."""

import json
import stat
from pathlib import Path

import pytest

from wavespark.bench import prepare as bench
from wavespark.bench.peers import dcm2niix
from wavespark.bench.prepare import PrepareBench, describe_prepare, measure_prepare
from wavespark.bench.series import write_ct
from wavespark.errors import SettingsError


@pytest.fixture
def small(monkeypatch):
    """Small series, all in this process."""
    for name in ("SERIES", "RAW", "LARGE"):
        monkeypatch.setattr(bench, name, ((48, 48, 20), (4.0, 4.0, 8.0)))
    monkeypatch.setattr(bench, "OURS", dict.fromkeys(bench.OURS, 0))
    monkeypatch.setattr(bench, "_in_child", lambda work, *args: work(*args))


def test_every_figure_is_measured_and_what_was_not_is_said(small, monkeypatch):
    monkeypatch.setattr(bench, "dcm2niix", lambda: None)
    told = []
    document = measure_prepare(PrepareBench(series=2, rounds=1), lambda done, total, text: told.append(done / total))
    assert json.loads(json.dumps(document)) == document
    assert set(document["figures"]) == set(document["met"]) == set(bench.TARGETS)
    assert document["figures"]["of_the_script"] is None and document["met"]["of_the_script"] is None
    assert all(document["figures"][name] > 0 for name in bench.TARGETS if name != "of_the_script")
    assert document["met"]["read_seconds"] and document["met"]["store_of_nii_gz"]
    assert len(document["forms"]["no worker"]["user_seconds"]) == 1
    assert "user_seconds" not in document["forms"]["two workers"]
    lines = "\n".join(describe_prepare(document))
    assert "not measured: pip install dcm2niix" in lines and document["command"] in lines
    assert told == sorted(told) and told[0] == 0


def test_the_program_to_compare_with_is_the_one_that_is_named(monkeypatch, tmp_path):
    program = tmp_path / "dcm2niix"
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.delenv("WAVESPARK_DCM2NIIX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dcm2niix() == str(program)
    monkeypatch.setenv("WAVESPARK_DCM2NIIX", "/elsewhere/dcm2niix")
    assert dcm2niix() == "/elsewhere/dcm2niix"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells")
def test_the_memory_of_a_child_is_its_own_and_not_that_of_its_parent(tmp_path):
    series, held = write_ct(tmp_path, (48, 48, 20), (4.0, 4.0, 8.0), seed=0), bytearray(b"x") * 2**30
    assert 0 < bench._in_child(bench._peak_megabytes, series) < len(held) / 2**20


def test_a_bench_of_one_series_is_refused():
    with pytest.raises(SettingsError, match="at least 2 series"):
        PrepareBench(series=1)
