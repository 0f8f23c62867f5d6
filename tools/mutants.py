"""Mutation tests: plant small faults in one package, and count those that its tests notice.

    pip install -c constraints.txt -e '.[dev,mutants]'
    python tools/mutants.py metrics            # or objectives, sampling, engine, downstream
    python tools/mutants.py metrics --minutes 10 --output benchmarks/results/mutants.json

mutmut (https://mutmut.readthedocs.io) works on a copy of the checkout, so nothing here is changed.
Survivors are listed: look at each, write the test that would have noticed it, or say why the
mutant means the same as the code.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "metrics": ("metrics",),
    "objectives": ("objectives",),
    "sampling": ("sampling",),
    "engine": ("engine", "objectives"),
    "downstream": ("downstream",),
}
"""Package -> folders of the tests that should notice its mutants."""
CONFIG = """
[tool.mutmut]
source_paths = ["src/wavespark"]
only_mutate = ["src/wavespark/{room}/*"]
also_copy = ["README.md", "docs", "constraints.txt", "tools"]
pytest_add_cli_args = ["-n", "0"]
pytest_add_cli_args_test_selection = [{tests}]
process_isolation = "forkserver"
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", choices=sorted(TESTS))
    parser.add_argument(
        "--minutes", type=float, default=600, help="Stop after so many minutes and count what was tried."
    )
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, help="Mutants tried at the same time.")
    parser.add_argument("--output", type=Path, help="JSON file to which the counts of the package are added.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "wavespark"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", "mutants"))
        run(copy, options.room, options.minutes, options.children)
        counts, survivors = collect(copy)
    tried = counts["killed"] + counts["survived"]
    share = round(counts["killed"] / tried, 3) if tried else None
    result = {**counts, "share": share, "command": f"python tools/mutants.py {options.room}"}
    sys.stdout.write(json.dumps({options.room: result}, indent=1) + "\n" + "\n".join(survivors) + "\n")
    if options.output:
        add(options.output, options.room, result)
    return 0


def run(copy: Path, room: str, minutes: float, children: int) -> None:
    """Run mutmut in the copy until it ends or the time is over."""
    tests = ", ".join(f'"tests/{folder}"' for folder in TESTS[room])
    with (copy / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(CONFIG.format(room=room, tests=tests))
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        subprocess.run(command, cwd=copy, env=environment, timeout=60 * minutes, stdout=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"stopped after {minutes:g} minutes\n")


def collect(copy: Path) -> tuple[Counter[str], list[str]]:
    """Return the counts of killed, survived, untested and untried mutants, and the names of the survivors."""
    counts: Counter[str] = Counter(killed=0, survived=0, untested=0, untried=0)
    survivors = []
    for path in sorted((copy / "mutants").rglob("*.meta")):
        for name, code in json.loads(path.read_bytes()).get("exit_code_by_key", {}).items():
            kind = {None: "untried", 0: "survived", 33: "untested"}.get(code, "killed")
            counts[kind] += 1
            if kind in {"survived", "untested"}:
                survivors.append(name)
    return counts, survivors


def add(path: Path, room: str, result: dict[str, Any]) -> None:
    """Put the result of a package into the file beside those of the others."""
    known = json.loads(path.read_bytes()) if path.is_file() else {}
    path.write_text(json.dumps({**known, room: result}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
