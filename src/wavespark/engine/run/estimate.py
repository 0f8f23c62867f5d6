"""What a run will take, found by doing a few of its steps in a process of its own: memory, time, disk, and the largest batch that fits."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from wavespark.config import PretrainSettings
from wavespark.engine.learning.objective import Objective
from wavespark.engine.learning.optimizer import make_optimizer, rate_at
from wavespark.engine.learning.update import Updater
from wavespark.engine.machine.device import choose_device, set_threads
from wavespark.engine.machine.distributed import Ranks
from wavespark.engine.machine.faults import Faults
from wavespark.engine.machine.memory import explained, peak_bytes, smaller
from wavespark.engine.machine.precision import Precision
from wavespark.engine.run.building import build_model, choose_split, stems_of, training_crops
from wavespark.engine.run.parts import parts_of, watched
from wavespark.engine.run.preflight import checkpoint_bytes, checkpoints_kept
from wavespark.errors import ExitCode, SettingsError, TrainingStopped, WavesparkError
from wavespark.prepare import Store, open_store
from wavespark.sampling import Batch, Crop, collate

HEADROOM = 0.9
"""Share of the memory that a run should use at most."""
TRYING_SECONDS = 60.0
"""A batch whose two steps would take longer is not tried."""
TRIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What was measured, and what follows for the whole run in one process."""

    model: str
    device: str
    precision: str
    parameters: int
    encoder_parameters: int
    crops_at_once: int
    """Crops of a step, divided by `run.accumulate`."""
    seconds_per_step: float
    parts: dict[str, float]
    """Seconds of the parts of a step of `crops_at_once` (of one, if they do not fit)."""
    seconds_per_load: float
    """To read and augment the crops of a step, in one process; loader processes do it meanwhile."""
    crops_per_second: float
    peak_bytes: int
    memory_bytes: int
    """Of the device."""
    largest_crops_at_once: int
    """With which a step was done within 90 % of the memory."""
    more_may_fit: bool
    """More were not tried, because a step of them takes long."""
    hours: float
    """Of `run.steps` steps; held-out measures come on top."""
    checkpoint_bytes: int
    disk_bytes: int
    """Of all checkpoints that are on the disk at once."""
    advice: str
    """Empty, or what to change because it does not fit."""


def estimate(settings: PretrainSettings, store: Store | None = None, steps: int = 3) -> Estimate:
    """Measures `steps` steps after one that warms up.

    Args:
        settings: of the run.
        store: what it would train on; without one, noise of one channel.
        steps: how many.

    Raises:
        SettingsError: if the settings cannot be followed here.
        TrainingStopped: if not even one crop fits into memory (exit code 5), or the store cannot be used (1).
    """
    wanted = settings.data.batch // settings.run.accumulate
    one = _in_child(settings, store, 1, steps if wanted == 1 else 1)
    room = int(HEADROOM * one["memory"])
    tried: dict[int, dict[str, Any] | None] = {1: one, 2: _if_it_fits(settings, store, 2, 1, room)}
    two = tried[2]
    each = max(1, two["peak"] - one["peak"]) if two else room
    likely = max(1, 1 + (room - one["peak"]) // each)
    if wanted <= likely and (wanted > 2 or (wanted == 2 and two)):
        tried[wanted] = _if_it_fits(settings, store, wanted, steps, room)
    full = tried.get(wanted)
    at_most = max(wanted, 2, int(TRYING_SECONDS / (2 * one["seconds"])))
    _narrow(tried, min(likely, at_most), lambda count: _if_it_fits(settings, store, count, 1, room))
    largest = max(count for count, found in tried.items() if found)
    peak = full["peak"] if full else one["peak"] + (wanted - 1) * each
    seconds = (full["seconds"] if full else wanted * one["seconds"]) * settings.run.accumulate
    load = one["load"] * settings.data.batch
    return Estimate(
        model=settings.model.name,
        device=one["device"],
        precision=one["precision"],
        parameters=one["parameters"],
        encoder_parameters=one["encoder_parameters"],
        crops_at_once=wanted,
        seconds_per_step=round(seconds, 4),
        parts=(full or one)["parts"],
        seconds_per_load=round(load, 4),
        crops_per_second=round(settings.data.batch / seconds, 3),
        peak_bytes=peak,
        memory_bytes=one["memory"],
        largest_crops_at_once=largest,
        more_may_fit=largest == at_most < likely,
        hours=round(max(seconds, load / max(1, settings.data.workers)) * settings.run.steps / 3600, 3),
        checkpoint_bytes=one["checkpoint"],
        disk_bytes=one["checkpoint"] * checkpoints_kept(settings),
        advice="" if full else smaller(settings, tuple(one["cell"])),
    )


def _narrow(
    tried: dict[int, dict[str, Any] | None], likely: int, attempt: Callable[[int], dict[str, Any] | None]
) -> None:
    """Adds tries from the likely largest batch downwards, halving what is left between one that fits and one that does not."""
    for _ in range(TRIES):
        fits = max(count for count, found in tried.items() if found)
        if likely <= fits:
            return
        if likely not in tried:
            tried[likely] = attempt(likely)
        if not tried[likely]:
            likely = (fits + likely) // 2


def _if_it_fits(
    settings: PretrainSettings, store: Store | None, batch: int, steps: int, room: int
) -> dict[str, Any] | None:
    """What `_in_child` finds; None if it takes more than there is room for."""
    try:
        found = _in_child(settings, store, batch, steps)
    except TrainingStopped as stopped:
        if stopped.exit_code != ExitCode.OUT_OF_MEMORY:
            raise
        return None
    return found if found["peak"] <= room else None


def _in_child(settings: PretrainSettings, store: Store | None, batch: int, steps: int) -> dict[str, Any]:
    """A process of its own: what was used before would count as used by the run."""
    told = {
        "settings": settings.model_dump(),
        "store": str(store.path) if store else "",
        "batch": batch,
        "steps": steps,
    }
    done = subprocess.run(
        [sys.executable, "-c", "from wavespark.engine.run.estimate import child; child()"],
        input=json.dumps(told),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        with torch.device("meta"):
            cell = settings.encoder({"MR": 1}).cell
        raise TrainingStopped(
            f"out of memory (or killed) in a step of {batch} crop(s). {smaller(settings, cell)}",
            ExitCode.OUT_OF_MEMORY,
        ) from None
    if found.get("code") == SettingsError.exit_code:
        raise SettingsError(found["refused"])
    if "refused" in found:
        raise TrainingStopped(found["refused"], ExitCode(found["code"]))
    return found


def child() -> None:
    """The measuring process: JSON in, JSON out."""
    told = json.load(sys.stdin)
    try:
        settings = PretrainSettings.model_validate(told["settings"])
        store = open_store(told["store"]) if told["store"] else None
        found = _measure(settings, store, told["batch"], told["steps"])
    except WavesparkError as error:
        found = {"refused": str(error), "code": error.exit_code}
    json.dump(found, sys.stdout)


def step_parts(settings: PretrainSettings, store: Store, steps: int = 3) -> dict[str, float]:
    """Seconds of each of `engine.run.parts.PARTS` in a step of `data.batch` crops, measured in this process after a step that warms up."""
    found: dict[str, float] = _measure(settings, store, settings.data.batch, steps)["parts"]
    return found


def _measure(settings: PretrainSettings, store: Store | None, batch: int, steps: int) -> dict[str, Any]:
    set_threads(settings.run.threads)
    device = choose_device(settings.run.device)
    precision = Precision(settings, device)
    model = build_model(settings, stems_of(store) if store else {"MR": 1}).to(device)
    changed = {"run": settings.run.model_copy(update={"accumulate": 1})}
    alone = settings.model_copy(update=changed)
    objective = Objective(alone, model, settings.mask_plan(model.encoder.cell)).to(device).train()
    optimizer = make_optimizer(objective, settings.optimizer)
    update = Updater(alone, objective, objective, optimizer, precision, Ranks(), Faults())
    seconds, load = [], []
    read = _reader(settings, store)
    with explained(alone, device, model.encoder.cell), watched(objective, optimizer) as spent:
        for number in range(1, steps + 2):
            if number == 2:  # the first step warms up
                spent.clear()
            started = time.perf_counter()
            crops = read(number, batch)
            loaded = time.perf_counter()
            update(crops, number, rate_at(number, settings)).line()
            seconds.append(time.perf_counter() - loaded)
            load.append((loaded - started) / batch)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": precision.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "encoder_parameters": sum(p.numel() for p in model.encoder.parameters()),
        "cell": list(model.encoder.cell),
        "seconds": median(seconds[1:]),
        "load": median(load[1:]),
        "parts": parts_of(spent, sum(seconds[1:]), batch * sum(load[1:]), steps),
        "peak": peak_bytes(device),
        "memory": _memory(device),
        "checkpoint": checkpoint_bytes(objective),
    }


def _reader(settings: PretrainSettings, store: Store | None) -> Callable[[int, int], Batch]:
    """What reads so many crops for a step of that number. The store is split before: a run does it once, so it is no part of reading."""
    if store is None:
        return lambda number, batch: _noise(settings, number, batch)
    dataset, size = training_crops(settings, store, choose_split(settings, store)), settings.data.batch
    # The samples of a batch have one modality, so that a batch larger than `data.batch` repeats its samples.
    return lambda number, batch: collate([dataset[number * size + i % size] for i in range(batch)])


def _noise(settings: PretrainSettings, number: int, batch: int) -> Batch:
    rng = np.random.default_rng(number)
    crop = Crop(
        voxels=rng.standard_normal((1, *settings.box), dtype=np.float32),
        foreground=np.ones(settings.box, dtype=bool),
        volume="noise",
        content="noise",
        modality="MR",
        contrast=None,
        spacing=(1.0, 1.0, 1.0),
        start=(0, 0, 0),
    )
    return collate([(i, crop) for i in range(batch)])


def _memory(device: torch.device) -> int:
    """Bytes of the device; on a CPU what is available now, at most what the container may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = min(found, 1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1]))
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError, StopIteration):
        return found
    return found
