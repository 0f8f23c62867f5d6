"""Measuring in a process of its own, whose allocator keeps memory instead of asking the system for
it again every step.

An allocator that returns large blocks to the system makes every step pay page faults, and more so
the larger the step: a ratio measured so flatters the smaller form. glibc reads these settings when
a process starts, hence a child process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from wavespark.bench.sparse import SparseBench, measure_sparse
from wavespark.bench.step import StepBench, measure_step
from wavespark.errors import SettingsError, WavesparkError

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**40),
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
    "MALLOC_ARENA_MAX": "1",
}
"""Settings of glibc's malloc (mallopt(3)); other allocators ignore them, and the count of page
faults tells."""


def in_clean_process(bench: StepBench | SparseBench) -> dict[str, Any]:
    """Run `measure_step` or `measure_sparse` in a child process with quiet memory; its progress
    goes to standard error.

    Raises:
        SettingsError: if the settings do not fit the model.
        WavesparkError: if the child died, for example because memory ran out.
    """
    # Threads that wait for each other sleep: spinning would count as time of the computation.
    threads = {"OMP_NUM_THREADS": str(bench.threads), "OMP_WAIT_POLICY": "passive"}
    child = subprocess.run(
        [sys.executable, "-c", "from wavespark.bench.child import main; main()", type(bench).__name__],
        input=json.dumps(asdict(bench)),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ALLOCATOR, **threads},
        check=False,
    )
    if child.returncode:
        raise WavesparkError(
            f"the measuring process ended with code {child.returncode}. A negative code or 137 usually means that "
            f"memory ran out: free some, or use a smaller --size than {bench.size}"
        )
    found: dict[str, Any] = json.loads(child.stdout)
    if "refused" in found:
        raise SettingsError(found["refused"])
    return found


_BENCHES: dict[str, tuple[str, Callable[..., Any], Callable[..., dict[str, Any]]]] = {
    "SparseBench": ("sparse", SparseBench, measure_sparse),
    "StepBench": ("step", StepBench, measure_step),
}
"""By the class of the settings: the word on the command line, the class, what measures."""


def main() -> None:
    """The child: settings as JSON on standard input, result as JSON on standard output."""

    verb, settings, measure = _BENCHES[sys.argv[1]]

    def on_progress(done: float, total: float, message: str) -> None:
        sys.stderr.write(f"bench {verb}: round {done:.0f} of {total:.0f}\n")

    try:
        found = measure(settings(**json.load(sys.stdin)), on_progress)
    except WavesparkError as error:
        found = {"refused": str(error)}
    json.dump(found, sys.stdout)
