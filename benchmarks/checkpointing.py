"""What checkpoints cost: the share of a run's time that training waits for them, at the default interval.

    python benchmarks/checkpointing.py --output benchmarks/results/checkpointing.json

The recipe tiny-cpu as it comes, only shorter; written before training goes on (what a processor does by default) and in the background. Target:
less than 3 % of the run in both.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from wavespark.prepare import prepare
from wavespark.samples import write_collection

TARGET = 0.03
FORMS = {"before training goes on": "false", "in the background": "true"}


def share(store: Path, background: str, steps: int) -> dict[str, float]:
    """One run: what share of it was spent waiting for checkpoints, and how many it wrote."""
    run = Path(tempfile.mkdtemp()) / "run"
    words = [f"run.steps={steps}", f"run.save_in_background={background}"]
    command = [sys.executable, "-m", "wavespark", "pretrain", "tiny-cpu", "--store", str(store), "--output", str(run)]
    subprocess.run([*command, *words], check=True, capture_output=True)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    sizes = [path.stat().st_size for path in (run / "checkpoints").rglob("*") if path.is_file()]
    shutil.rmtree(run.parent)
    return {
        "share": summary["checkpoint_seconds"] / summary["seconds"],
        "bytes_kept": sum(sizes),
        "seconds": summary["seconds"],
    }


def main() -> None:
    """Rounds of both forms."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--output", type=Path)
    chosen = options.parse_args()
    scratch = Path(tempfile.mkdtemp())
    rounds = []
    try:
        write_collection(scratch / "heads", 4)
        prepare(scratch / "heads", scratch / "store")
        for number in range(chosen.rounds):
            rounds.append({form: share(scratch / "store", word, chosen.steps) for form, word in FORMS.items()})
            print(
                f"round {number + 1}:", *(f"{form} {run['share']:.4f}" for form, run in rounds[-1].items()), flush=True
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    shares = {form: statistics.median(r[form]["share"] for r in rounds) for form in FORMS}
    document = {
        "what": "share of a run of tiny-cpu that waits for checkpoints, at the default interval",
        "command": f"python benchmarks/checkpointing.py --rounds {chosen.rounds} --steps {chosen.steps}",
        "shares": shares,
        "target": TARGET,
        "met": all(s < TARGET for s in shares.values()),
        "load_of_the_machine": os.getloadavg()[1],
        "rounds": rounds,
    }
    text = json.dumps(document, indent=2)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
