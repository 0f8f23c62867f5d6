"""Seconds of a training step, measured by a few."""

import time
from statistics import median

import torch

from wavespark.config import PretrainSettings
from wavespark.engine.learning.objective import Objective
from wavespark.engine.learning.optimizer import make_optimizer
from wavespark.engine.machine.device import choose_device, cores
from wavespark.engine.run.building import build_model, choose_split, stems_of, training_crops
from wavespark.engine.watching.validation import HeldOut
from wavespark.prepare import Store
from wavespark.sampling import collate


def seconds_per_step(settings: PretrainSettings, store: Store, steps: int = 4) -> float:
    """Median wall-clock seconds of a training step, without loading; the first one, which warms up,
    is left out."""
    device = choose_device(settings.run.device)
    model = build_model(settings, stems_of(store)).to(device).train()
    objective = Objective(settings, model, settings.mask_plan(model.encoder.cell)).to(device)
    optimizer = make_optimizer(objective, settings.optimizer)
    dataset = training_crops(settings, store, choose_split(settings, store))
    seconds = []
    for number in range(steps + 1):
        batch = collate([dataset[number * settings.data.batch + i] for i in range(settings.data.batch)])
        started = time.perf_counter()
        objective(batch, number + 1).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])


def seconds_of_a_run(settings: PretrainSettings, store: Store) -> tuple[float, float]:
    """Measure what a run costs here.

    Returns:
        Wall-clock seconds of a training step, with its share of loading, and of the first held-out
        measure.
    """
    split = choose_split(settings, store)
    model = build_model(settings, stems_of(store)).to(choose_device(settings.run.device))
    held_out = HeldOut.of(store, split, settings, settings.mask_plan(model.encoder.cell))
    began = time.perf_counter()
    held_out.measure(model, 0)
    measured = time.perf_counter()
    dataset = training_crops(settings, store, split)
    collate([dataset[i] for i in range(settings.data.batch)])
    loading = time.perf_counter() - measured
    return seconds_per_step(settings, store) + loading / cores(), measured - began
