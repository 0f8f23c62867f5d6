"""Two processes of one thread against one process of one thread: the same run, the same global batch.

    python benchmarks/processes.py --output benchmarks/results/processes.json

The two take turns, and the figure is the median of the ratios within a round, of seconds a step from summary.json. Target: at most 0.65.
It needs two quiet cores: how many were used, and the load of the machine, stand in the result.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wavespark.prepare import prepare
from wavespark.samples import write_collection

TARGET = 0.65


def trained(processes: int, store: Path, words: list[str]) -> dict[str, float]:
    """A run in that many processes: seconds a step, and what share of the cores was busy with it."""
    run = Path(tempfile.mkdtemp()) / "run"
    launch = (
        ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    )
    command = [
        sys.executable,
        "-m",
        *launch,
        "wavespark",
        "pretrain",
        "tiny-cpu",
        "--store",
        str(store),
        "--output",
        str(run),
        *words,
    ]
    began, idle = time.perf_counter(), os.times()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    ended, after = time.perf_counter(), os.times()
    used = after.children_user + after.children_system - idle.children_user - idle.children_system
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    shutil.rmtree(run.parent)
    if summary["processes"] != processes:
        raise SystemExit(f"{summary['processes']} processes instead of {processes}")
    return {
        "seconds_per_step": summary["seconds"] / summary["steps"],
        "checkpoint_share": summary["checkpoint_seconds"] / (ended - began),
        "cores_used": used / (ended - began),
    }


def main() -> None:
    """Rounds of both, after one of each that does not count."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--crop", type=int, default=48)
    options.add_argument("--output", type=Path)
    chosen = options.parse_args()
    scratch = Path(tempfile.mkdtemp())
    words = [
        f"run.steps={chosen.steps}",
        f"data.batch={chosen.batch}",
        f"data.crop=[{chosen.crop}, {chosen.crop}, {chosen.crop}]",
        "data.workers=0",
        "run.threads=1",
        f"run.checkpoint_every={chosen.steps}",
        f"run.validate_every={chosen.steps}",
        "run.held_out_crops=1",
        "run.tensorboard=false",
        "health.probe=''",
    ]
    rounds = []
    try:
        write_collection(scratch / "heads", 4)
        prepare(scratch / "heads", scratch / "store")
        for number in range(chosen.rounds):
            order = (1, 2) if number % 2 else (2, 1)
            found = {count: trained(count, scratch / "store", words) for count in order}
            rounds.append({"one": found[1], "two": found[2]})
            print(f"round {number + 1}: {found[2]['seconds_per_step'] / found[1]['seconds_per_step']:.3f}", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    ratio = statistics.median(r["two"]["seconds_per_step"] / r["one"]["seconds_per_step"] for r in rounds)
    document = {
        "what": "seconds a step of two processes of one thread, over those of one process of one thread, the same global batch",
        "command": f"python benchmarks/processes.py --rounds {chosen.rounds} --steps {chosen.steps} --batch {chosen.batch} --crop {chosen.crop}",
        "ratio": ratio,
        "target": TARGET,
        "met": ratio <= TARGET,
        "load_of_the_machine": os.getloadavg()[1],
        "rounds": rounds,
    }
    text = json.dumps(document, indent=2)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
