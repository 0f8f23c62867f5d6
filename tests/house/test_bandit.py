"""Promise S4: a static analyser of somebody else's finds nothing of medium or high severity in the package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_bandit_finds_nothing_of_medium_or_high_severity(tmp_path: Path) -> None:
    pytest.importorskip("bandit")

    def found(folder: Path) -> list[str]:
        command = [sys.executable, "-m", "bandit", "-q", "-ll", "-r", str(folder), "-f", "json"]
        document = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
        assert document["errors"] == []
        return [f"{r['test_id']} {r['filename']}:{r['line_number']}" for r in document["results"]]

    (tmp_path / "bad.py").write_text("import subprocess\nsubprocess.run(input(), shell=True)\neval(input())\n")
    assert len(found(tmp_path)) == 2  # it looks
    assert found(ROOT / "src/wavespark") == []
