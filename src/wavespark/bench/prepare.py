"""Cost of preparation: two workers against one, against dcm2niix and a script, reading, memory, and
size on disk."""

import gzip
import multiprocessing
import os
import resource
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wavespark.bench.cost import resident_bytes
from wavespark.bench.environment import describe_environment
from wavespark.bench.lines import verdict
from wavespark.bench.peers import dcm2niix, prepare_with_script
from wavespark.bench.series import write_ct
from wavespark.engine.machine.memory import peak_bytes
from wavespark.errors import SettingsError
from wavespark.prepare import load_recipe, open_store, prepare
from wavespark.prepare.item import make_item
from wavespark.prepare.item_files import FOREGROUND, VOXELS
from wavespark.progress import OnProgress, ignore_progress
from wavespark.shapes import Triple
from wavespark.volumes import find_sources, new_secret, read_source

TARGETS = {
    "two_workers_of_one": 0.6,
    "of_the_script": 1.0,
    "read_seconds": 1.5,
    "store_of_nii_gz": 1.05,
    "worker_megabytes": 2048.0,
}
"""At most."""

OURS, SCRIPT = {"no worker": 0, "one worker": 1, "two workers": 2}, "dcm2niix and script"
"""Processor time is known of what runs in this process and its children: not of workers, which are
a server's children."""

SERIES: tuple[Triple, tuple[float, float, float]] = (256, 256, 96), (0.9, 0.9, 1.8)
RAW: tuple[Triple, tuple[float, float, float]] = (512, 512, 300), (0.45, 0.45, 0.6)
LARGE: tuple[Triple, tuple[float, float, float]] = (512, 512, 600), (0.45, 0.45, 0.3)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareBench:
    """Settings of a benchmark of preparation."""

    series: int = 32
    rounds: int = 3

    def __post_init__(self) -> None:
        if self.series < 2 or self.rounds < 1:
            raise SettingsError(f"--series {self.series} --rounds {self.rounds}: at least 2 series and 1 round")

    @property
    def command(self) -> str:
        """Command that repeats the measurement."""
        return shlex.join(["wavespark", "bench", "prepare", "--series", str(self.series), "--rounds", str(self.rounds)])


def measure_prepare(bench: PrepareBench, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """The measurement as plain values, ready for JSON."""
    steps = 4.0 + 2 * bench.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        on_progress(0, steps, f"{bench.series} series to write")
        series = [write_ct(folder / "data" / f"s{n:02d}", *SERIES, seed=n) for n in range(bench.series)]
        costs: dict[str, list[tuple[float, float]]] = {form: [] for form in (*OURS, SCRIPT)}
        program = dcm2niix()
        forms: dict[str, Callable[[Path], object]] = {
            form: partial(prepare, folder / "data", workers=workers) for form, workers in OURS.items()
        }
        if program is not None:
            forms[SCRIPT] = partial(prepare_with_script, program, series)
        for number in range(bench.rounds):
            for form, work in forms.items():
                on_progress(1 + 2 * number, steps, f"round {number + 1} of {bench.rounds}, {form}")
                costs[form].append(_wall_and_user(work, folder / f"{form.replace(' ', '-')}-{number}"))
        sizes = _store_of_nii_gz(folder / "one-worker-0")
        on_progress(steps - 3, steps, "reading 300 slices of 512 x 512")
        reads = _read_seconds(write_ct(folder / "raw", *RAW, seed=1000), bench.rounds)
        on_progress(steps - 2, steps, "memory for 600 slices of 512 x 512")
        megabytes = _in_child(_peak_megabytes, write_ct(folder / "large", *LARGE, seed=1001))
    wall, user = ({f: [c[kind] for c in kept] for f, kept in costs.items()} for kind in (0, 1))
    figures = {
        "two_workers_of_one": _ratio(wall["two workers"], wall["one worker"]),
        "of_the_script": _ratio(user["no worker"], user[SCRIPT]),
        "read_seconds": statistics.median(reads),
        "store_of_nii_gz": sizes,
        "worker_megabytes": megabytes,
    }
    return {
        "bench": "prepare",
        "what": f"{bench.series} CT series of {' x '.join(map(str, SERIES[0]))} to head-1mm",
        "command": bench.command,
        "targets": TARGETS,
        "figures": figures,
        "met": {name: None if value is None else value <= TARGETS[name] for name, value in figures.items()},
        "forms": {
            f: {"wall_seconds": wall[f]} | ({"user_seconds": user[f]} if f in ("no worker", SCRIPT) else {})
            for f in costs
        },
        "rounds": bench.rounds,
        "cores": os.cpu_count(),
        "environment": describe_environment(),
    }


def describe_prepare(document: dict[str, Any]) -> Iterator[str]:
    """The measurement for people, line by line."""
    yield document["what"]
    for form, cost in document["forms"].items():
        if cost["wall_seconds"]:
            wall = f"{form:<20} {statistics.median(cost['wall_seconds']):8.1f} s on the wall"
            user = cost.get("user_seconds")
            yield f"{wall} {statistics.median(user):8.1f} s in user mode" if user else wall
    names = {
        "two_workers_of_one": "two workers, share of the time of one",
        "of_the_script": "user mode, share of that of dcm2niix and script",
        "read_seconds": "300 raw slices of 512 x 512 read, s of CPU",
        "store_of_nii_gz": "store, share of .nii.gz of the same arrays",
        "worker_megabytes": "peak memory for 512 x 512 x 600, MB",
    }
    for key, value in document["figures"].items():
        if value is None:
            yield f"{names[key]:<50} not measured: pip install dcm2niix"
        else:
            met = verdict(document["met"][key])
            yield f"{names[key]:<50} {value:8.3g}   at most {document['targets'][key]:g}: {met}"
    yield f"again: {document['command']}"


def _ratio(costs: Sequence[float], yardstick: Sequence[float]) -> float | None:
    pairs = list(zip(costs, yardstick, strict=False))
    return statistics.median(a / b for a, b in pairs) if pairs else None


def _wall_and_user(work: Callable[[Path], object], output: Path) -> tuple[float, float]:
    """Seconds on the wall, and in user mode of this process and the children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    before, started = sum(resource.getrusage(k).ru_utime for k in kinds), time.perf_counter()
    work(output)
    return time.perf_counter() - started, sum(resource.getrusage(k).ru_utime for k in kinds) - before


def _in_child(work: Callable[..., Any], *args: Any) -> Any:
    """The work's result from a process of its own, whose peak memory nothing else has raised."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result = pool.apply(work, args)
        pool.close()
        pool.join()
    return result


def _peak_megabytes(folder: Path) -> float:
    (source,), _ = find_sources(folder, new_secret())
    for volume in read_source(source, new_secret()):
        make_item(volume, load_recipe("head-1mm"))
    try:
        return resident_bytes("VmHWM:") / 2**20
    except OSError:
        return peak_bytes(torch.device("cpu")) / 2**20


def _read_seconds(folder: Path, rounds: int) -> list[float]:
    """User and system time of finding and reading a series."""
    seconds = []
    for _ in range(rounds):
        before = time.process_time()
        (source,), _ = find_sources(folder, new_secret())
        read_source(source, new_secret())
        seconds.append(time.process_time() - before)
    return seconds


def _store_of_nii_gz(path: Path) -> float:
    """Bytes of voxels and foreground in a store, as a share of the same arrays under gzip, level
    6."""
    files = [(v, name) for v in open_store(path)[:4] for name in (VOXELS, FOREGROUND)]
    packed = sum(len(gzip.compress(v.items.array(v.id, name)[:].tobytes(order="F"), 6)) for v, name in files)
    return sum((path / "items" / v.id / name).stat().st_size for v, name in files) / packed
