"""How fast training crops come: crops a second from a warm store, before and with augmentation,
beside the time of a step."""

import os
import shlex
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavespark.bench.cost import Cost
from wavespark.bench.environment import describe_environment
from wavespark.bench.lines import verdict
from wavespark.config import load_pretraining
from wavespark.engine.run.timing import seconds_per_step
from wavespark.errors import SettingsError
from wavespark.prepare import Store, open_store, prepare
from wavespark.progress import OnProgress, ignore_progress
from wavespark.samples import synthetic_head, write_nifti
from wavespark.sampling import STRONG, Augmentation, CropDataset, Region, batches, collate

TARGET = 200.0
"""Crops of 96^3 a second, from two processes, before augmentation."""

SHAPE, HEADS, BATCH = (176, 208, 192), 3, 4
FORMS = {
    "as stored": Augmentation(flip=0, scale=0, shift=0, noise=0),
    "light": Augmentation(),
    "strong": STRONG,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderBench:
    """Settings of a loader benchmark."""

    size: int = 96
    """Voxels along each edge of a crop."""
    workers: int = 2
    """Loader processes."""
    crops: int = 240
    """Crops a form and round."""
    rounds: int = 3
    recipe: str = "tiny-cpu"
    """Whose step the loader must keep up with."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("size", "workers", "rounds"):
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name} {getattr(self, name)}: at least 1")
        if self.crops < 8 * BATCH:
            raise SettingsError(f"--crops {self.crops}: at least {8 * BATCH}, or only the start is measured")

    @property
    def command(self) -> str:
        """Command that repeats the measurement."""
        words = ["wavespark", "bench", "loader", "--recipe", self.recipe]
        for name in ("size", "workers", "crops", "rounds", "seed"):
            words += [f"--{name}", str(getattr(self, name))]
        return shlex.join(words)


def measure_loader(bench: LoaderBench, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """The measurement as plain values, ready for JSON.

    Raises:
        SettingsError: if the recipe is not known.
    """
    settings = load_pretraining(bench.recipe)
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder), bench.seed, on_progress)
        rates: dict[str, list[float]] = {form: [] for form in FORMS}
        costs: dict[str, list[float]] = {form: [] for form in FORMS}
        _processor_seconds(bench, store, FORMS["as stored"], 2 * BATCH)  # warms the page cache
        for number in range(bench.rounds):
            for form, augmentation in FORMS.items():
                on_progress(1 + number, 2 + bench.rounds, f"round {number + 1} of {bench.rounds}, {form}")
                rates[form].append(_crops_a_second(bench, store, augmentation))
                costs[form].append(_processor_seconds(bench, store, augmentation, 24))
        on_progress(1 + bench.rounds, 2 + bench.rounds, f"a step of {bench.recipe}")
        step = seconds_per_step(settings, store)
    edge = settings.data.crop
    voxels = edge[0] * edge[1] * edge[2] / bench.size**3
    shares = {form: voxels * statistics.median(costs[form]) * settings.data.batch / step for form in FORMS}
    rate = {form: statistics.median(rates[form]) for form in FORMS}
    results = [
        {
            "form": form,
            "crops_a_second": rate[form],
            "user_seconds_a_crop": statistics.median(costs[form]),
            "share_of_a_step": shares[form],
        }
        for form in FORMS
    ]
    return {
        "bench": "loader",
        "what": f"crops of {bench.size}^3 from {HEADS} synthetic heads of {' x '.join(map(str, SHAPE))} at 1 mm, {bench.workers} processes",
        "command": bench.command,
        "target": TARGET,
        "met": rate["as stored"] >= TARGET and shares["strong"] < 1,
        "results": results,
        "step": {"recipe": bench.recipe, "seconds": step, "crops": settings.data.batch, "crop": list(edge)},
        "rounds": bench.rounds,
        "crops": bench.crops,
        "cores": os.cpu_count(),
        "environment": describe_environment(),
    }


def describe_loader(document: dict[str, Any]) -> Iterator[str]:
    """The measurement for people, line by line."""
    step = document["step"]
    yield document["what"]
    yield f"{'augmentation':<12} {'crops a s':>10} {'user ms a crop':>15} {'of a step':>10}"
    for r in document["results"]:
        yield f"{r['form']:<12} {r['crops_a_second']:>10.0f} {1e3 * r['user_seconds_a_crop']:>15.1f} {100 * r['share_of_a_step']:>8.0f} %"
    edge = " x ".join(map(str, step["crop"]))
    yield f"of a step: processor time of one loader process for a batch, against {step['seconds']:.2f} s for {step['crops']} crops of {edge} ({step['recipe']})"
    yield f"target: {document['target']:.0f} crops a second as stored, and below 100 % of a step: {verdict(document['met'])}"
    yield f"again: {document['command']}"


def _store(folder: Path, seed: int, on_progress: OnProgress) -> Store:
    for n in range(HEADS):
        on_progress(n / HEADS, 1.0, f"synthetic head {n + 1} of {HEADS}")
        write_nifti(synthetic_head(seed + n, "T1", shape=SHAPE), folder / "heads" / f"sub-{n}_T1w.nii.gz")
    prepare(folder / "heads", folder / "store")
    return open_store(folder / "store")


def _dataset(bench: LoaderBench, store: Store, augmentation: Augmentation) -> CropDataset:
    return CropDataset(
        store,
        [Region(volume=v.id, start=(0, 0, 0), size=v.size) for v in store],
        crop=(bench.size,) * 3,
        batch=BATCH,
        seed=bench.seed,
        augmentation=augmentation,
    )


def _crops_a_second(bench: LoaderBench, store: Store, augmentation: Augmentation) -> float:
    """On the wall, from the first batch on: starting processes is no part of it."""
    loaded = batches(_dataset(bench, store, augmentation), start=0, stop=bench.crops // BATCH, workers=bench.workers)
    try:
        for _ in range(2 * bench.workers):  # those that were made while the others started
            next(loaded)
        started = time.perf_counter()
        count = sum(len(batch.draws) for batch in loaded)
        return count / (time.perf_counter() - started)
    finally:
        loaded.close()


def _processor_seconds(bench: LoaderBench, store: Store, augmentation: Augmentation, crops: int) -> float:
    """Seconds in user mode for one crop, in this process, put together to batches."""
    made = _dataset(bench, store, augmentation)
    firsts = range(0, crops, BATCH)
    return Cost.of(lambda: [collate([made[n + k] for k in range(BATCH)]) for n in firsts]).user / crops
