"""Cost of a run, measured by a few of its steps in a process of their own: memory, time, disk, and
the largest batch that fits."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
from wavespark.progress import OnProgress, ignore_progress
from wavespark.sampling import Batch, Crop, collate
from wavespark.shapes import Triple, as_triple

HEADROOM = 0.9
"""Share of the memory that a run should use at most."""
TRYING_SECONDS = 60.0
"""A batch whose two steps would take longer is not tried."""
TRIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Measured numbers, and what they mean for the whole run in one process."""

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
    """Memory of the device."""
    largest_crops_at_once: int
    """Most crops whose step was done within 90 % of the memory."""
    more_may_fit: bool
    """True if larger batches were not tried because a step of them takes long."""
    hours: float
    """Hours of `run.steps` steps; held-out measures come on top."""
    checkpoint_bytes: int
    disk_bytes: int
    """Bytes of all checkpoints that are on the disk at once."""
    advice: str
    """Advice if the run does not fit into memory; else empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Numbers of a few steps with one number of crops, done in a process of their own."""

    device: str
    precision: str
    parameters: int
    encoder_parameters: int
    cell: Triple
    seconds: float
    """Median of a step, without loading."""
    load: float
    """Median seconds to read and augment one crop."""
    parts: dict[str, float]
    """Seconds of each part of a step."""
    peak: int
    """Bytes of memory at the peak."""
    memory: int
    """Bytes of memory of the device."""
    checkpoint: int
    """Bytes of a checkpoint."""


def estimate(
    settings: PretrainSettings, store: Store | None = None, steps: int = 3, on_progress: OnProgress = ignore_progress
) -> Estimate:
    """Measure `steps` steps after one for warm-up, and find the largest batch that fits.

    Args:
        settings: of the run.
        store: volumes to train on; None = noise of one channel.
        steps: number of measured steps.
        on_progress: called with (done, total, message) before each try.

    Returns:
        The measured numbers and what they mean for the whole run in one process.

    Raises:
        SettingsError: if the settings cannot be followed here.
        TrainingStopped: if not even one crop fits into memory (exit code 5), or the store cannot be
            used (1).
    """
    requested = settings.data.batch // settings.run.accumulate
    tries = _Tries(settings, store, on_progress)
    one = tries.measure(1, steps if requested == 1 else 1)
    tries.room = int(HEADROOM * one.memory)
    two = tries.fits(2, 1)
    each = max(1, two.peak - one.peak) if two else tries.room
    likely = max(1, 1 + (tries.room - one.peak) // each)
    if requested <= likely and (requested > 2 or (requested == 2 and two)):
        tries.fits(requested, steps)
    full = tries.done.get(requested)
    at_most = max(requested, 2, int(TRYING_SECONDS / (2 * one.seconds)))
    _narrow(tries.done, min(likely, at_most), lambda count: tries.fits(count, 1))
    largest = max(count for count, measurement in tries.done.items() if measurement)
    seconds = (full.seconds if full else requested * one.seconds) * settings.run.accumulate
    load = one.load * settings.data.batch
    return Estimate(
        model=settings.model.name,
        device=one.device,
        precision=one.precision,
        parameters=one.parameters,
        encoder_parameters=one.encoder_parameters,
        crops_at_once=requested,
        seconds_per_step=round(seconds, 4),
        parts=(full or one).parts,
        seconds_per_load=round(load, 4),
        crops_per_second=round(settings.data.batch / seconds, 3),
        peak_bytes=full.peak if full else one.peak + (requested - 1) * each,
        memory_bytes=one.memory,
        largest_crops_at_once=largest,
        more_may_fit=largest == at_most < likely,
        hours=round(max(seconds, load / max(1, settings.data.workers)) * settings.run.steps / 3600, 3),
        checkpoint_bytes=one.checkpoint,
        disk_bytes=one.checkpoint * checkpoints_kept(settings),
        advice="" if full else smaller(settings, one.cell),
    )


class _Tries:
    """Measurements by number of crops; None where they did not fit into `room` bytes."""

    def __init__(self, settings: PretrainSettings, store: Store | None, on_progress: OnProgress) -> None:
        self.settings, self.store, self.on_progress = settings, store, on_progress
        self.done: dict[int, Measurement | None] = {}
        self.room = sys.maxsize

    def measure(self, batch: int, steps: int) -> Measurement:
        self.on_progress(len(self.done), 3 + TRIES, f"{steps + 1} step(s) of {batch} crop(s)")
        measurement = _in_child(self.settings, self.store, batch, steps)
        self.done[batch] = measurement
        return measurement

    def fits(self, batch: int, steps: int) -> Measurement | None:
        try:
            measurement = self.measure(batch, steps)
        except TrainingStopped as stopped:
            if stopped.exit_code != ExitCode.OUT_OF_MEMORY:
                raise
            self.done[batch] = None
            return None
        if measurement.peak > self.room:
            self.done[batch] = None
        return self.done[batch]


def _narrow(tried: dict[int, Measurement | None], likely: int, attempt: Callable[[int], Measurement | None]) -> None:
    """Try batches from the likely largest one downwards, halving the gap between one that fits and
    one that does not."""
    for _ in range(TRIES):
        fits = max(count for count, measurement in tried.items() if measurement)
        if likely <= fits:
            return
        if likely not in tried:
            tried[likely] = attempt(likely)
        if not tried[likely]:
            likely = (fits + likely) // 2


def _in_child(settings: PretrainSettings, store: Store | None, batch: int, steps: int) -> Measurement:
    """Measure in a process of its own: memory that was used before would count as used by the
    run."""
    request = {
        "settings": settings.model_dump(),
        "store": str(store.path) if store else "",
        "batch": batch,
        "steps": steps,
    }
    process = subprocess.run(
        [sys.executable, "-c", "from wavespark.engine.run.estimate import child; child()"],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(process.stdout)
    except ValueError:
        raise TrainingStopped(
            f"out of memory (or killed) in a step of {batch} crop(s). {smaller(settings, settings.cell)}",
            ExitCode.OUT_OF_MEMORY,
        ) from None
    if answer.get("code") == SettingsError.exit_code:
        raise SettingsError(answer["refused"])
    if "refused" in answer:
        raise TrainingStopped(answer["refused"], ExitCode(answer["code"]))
    return Measurement(**answer | {"cell": as_triple(answer["cell"])})


def child() -> None:
    """Measure in this process: JSON in, JSON out."""
    request = json.load(sys.stdin)
    try:
        settings = PretrainSettings.model_validate(request["settings"])
        store = open_store(request["store"]) if request["store"] else None
        answer = asdict(_measure(settings, store, request["batch"], request["steps"]))
    except WavesparkError as error:
        answer = {"refused": str(error), "code": error.exit_code}
    json.dump(answer, sys.stdout)


def step_parts(settings: PretrainSettings, store: Store, steps: int = 3) -> dict[str, float]:
    """Measure in this process the seconds of each part of a step (`engine.run.parts.PARTS`), after
    one for warm-up."""
    return _measure(settings, store, settings.data.batch, steps).parts


def _measure(settings: PretrainSettings, store: Store | None, batch: int, steps: int) -> Measurement:
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
    return Measurement(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        precision=precision.name,
        parameters=sum(p.numel() for p in model.parameters()),
        encoder_parameters=sum(p.numel() for p in model.encoder.parameters()),
        cell=model.encoder.cell,
        seconds=median(seconds[1:]),
        load=median(load[1:]),
        parts=parts_of(spent, sum(seconds[1:]), batch * sum(load[1:]), steps),
        peak=peak_bytes(device),
        memory=_memory(device),
        checkpoint=checkpoint_bytes(objective),
    )


def _reader(settings: PretrainSettings, store: Store | None) -> Callable[[int, int], Batch]:
    """Return the function that reads the crops of a step.

    The store is split before, because a run does that once.
    """
    if store is None:
        return lambda number, batch: _noise(settings, number, batch)
    dataset, size = training_crops(settings, store, choose_split(settings, store)), settings.data.batch
    # The samples of a batch have one modality, so that a batch larger than `data.batch` repeats its
    # samples.
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
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        size = min(size, 1024 * int(next(x for x in lines if x.startswith("MemAvailable")).split()[1]))
        size = min(size, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError, StopIteration):
        return size
    return size
