"""Peak memory of one form of a convolution, in a process of its own that gives freed memory back at
once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from wavespark.bench.cost import resident_bytes
from wavespark.bench.sparse_forms import LAST, Scene, Work, cells_work, dense_work, visible_cells
from wavespark.errors import WavesparkError

DENSE = {"conv": LAST, "block": "dense, channels last"}
"""The yardstick of each operation."""


def compare_memory(size: int, channels: int, hidden: float, seed: int, cells: tuple[int, ...]) -> list[dict[str, Any]]:
    """For each operation and cell: MB above the start of forward and backward pass, and those of
    the dense form; [] where Linux does not tell."""
    if not Path("/proc/self/status").exists():
        return []
    rows = []
    for operation, dense_form in DENSE.items():
        settings = {"operation": operation, "size": size, "channels": channels, "hidden": hidden, "seed": seed}
        dense = _in_own_process({**settings, "cell": 0})
        for cell in cells:
            extra = _in_own_process({**settings, "cell": cell})
            rows.append(
                {
                    "operation": operation,
                    "channels": channels,
                    "form": f"cells of {cell}, {100 * hidden:g} % hidden",
                    "extra_peak_mb": extra,
                    "dense_form": dense_form,
                    "dense_extra_peak_mb": dense,
                    "met": extra < dense,
                }
            )
    return rows


def _in_own_process(settings: dict[str, Any]) -> float:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    child = subprocess.run(
        [sys.executable, "-c", "from wavespark.bench.sparse_memory import main; main()"],
        input=json.dumps(settings),
        stdout=subprocess.PIPE,
        text=True,
        env={**quiet, "MALLOC_MMAP_THRESHOLD_": str(2**16), "MALLOC_ARENA_MAX": "1"},
        check=False,
    )
    if child.returncode:
        raise WavesparkError(f"the process that measures memory ended with code {child.returncode}: {settings}")
    return float(json.loads(child.stdout))


def main() -> None:
    """The child: settings as JSON on standard input, MB on standard output."""
    settings = json.load(sys.stdin)
    _work(**{**settings, "size": 32})()  # what is loaded and compiled once is nobody's
    work = _work(**settings)
    before = resident_bytes("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the high-water mark starts again
    work()
    peak = resident_bytes("VmHWM:")
    json.dump(round((peak - before) / 2**20, 1), sys.stdout)


def _work(operation: str, size: int, channels: int, hidden: float, seed: int, cell: int) -> Work:
    scene = Scene.of(channels, size)
    visible = visible_cells(size, cell or 16, hidden, seed)
    if cell:
        return cells_work(scene, visible, cell, block=operation == "block")
    return dense_work(scene, visible, 16, DENSE[operation])
