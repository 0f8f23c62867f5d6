"""Objectives beside each other on synthetic heads, at equal CPU time: what each learns to reconstruct, and what its features know.

Every objective trains the same encoder from the same weights for the same CPU seconds of one thread, loading included; a dear step means fewer steps.
All are then measured on the same held-out patients: normalised loss of single crops at the store's resolution under the same masks (1 = predicting the
mean), and balanced accuracy, by patient, of a linear probe that must tell in which ninth of the head a crop lies (3 parts front to back, 3 bottom to
top), and of one that must tell the contrast. `fresh` is the encoder before training: what a probe gives without any learning.

Differences are paired by seed; with n seeds their 95 % interval uses Student's t, and where it holds zero the table says "within noise".
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy import stats

from wavespark import __version__
from wavespark.config import PretrainSettings, load_pretraining
from wavespark.engine.learning.objective import Objective
from wavespark.engine.learning.optimizer import make_optimizer, rate_at, set_learning_rate
from wavespark.engine.learning.step import target_cells
from wavespark.engine.run.building import build_model, stems_of, training_crops
from wavespark.engine.watching.validation import HeldOut
from wavespark.metrics.probes import probe
from wavespark.models import SparK
from wavespark.objectives import places_of
from wavespark.prepare import Recipe, Store, load_recipe, open_store, prepare
from wavespark.randomness import stream
from wavespark.samples import synthetic_head, write_nifti
from wavespark.sampling import Region, collate, split_store
from wavespark.sampling.crops import read_crop

CONTRASTS = {"TOF-MRA": "tof", "T1": "T1w", "T2": "T2w"}
SHAPE, SPACING = (112, 136, 104), (1.5, 1.5, 1.5)
CROP = 48
VIEW = ("objective.second_view=1.0",)
METHODS: dict[str, tuple[str, ...]] = {
    "reconstruction": (),
    "+ second view (MiM)": VIEW,
    "+ second view + InfoNCE": (*VIEW, "objective.contrast=0.1"),
    "dense MAE": ("objective.dense=true",),
    "SparK random, everywhere": ("objective.where=everywhere",),
    "hard cells": ("mask.guide=hard", "mask.guide_steps=200"),
}
FRESH = "fresh"
MEASURES = ("normalised_loss", "position", "contrast")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training."""

    method: str
    seed: int
    seconds: float
    store: str


def settings_of(method: str, seed: int, steps: int = 1000) -> PretrainSettings:
    """`tiny-cpu` with smaller crops."""
    words = [
        f"data.crop=[{CROP}, {CROP}, {CROP}]",
        "data.held_out_fraction=0.4",
        "run.held_out_crops=12",
        "health.probe=''",
        f"run.seed={seed}",
        f"run.steps={steps}",
    ]
    return load_pretraining("tiny-cpu", [*words, *METHODS.get(method, ())])


def make_store(folder: Path, patients: int) -> Store:
    """Heads of so many anatomies in three MR contrasts, at 1.5 mm; made once."""
    if not (folder / "done").exists():
        for seed in range(patients):
            for contrast, suffix in CONTRASTS.items():
                path = folder / "heads" / f"sub-{seed:03d}" / f"sub-{seed:03d}_{suffix}.nii.gz"
                write_nifti(synthetic_head(seed, contrast, shape=SHAPE, spacing=SPACING), path)
        recipe = load_recipe("head-1mm")
        prepare(
            folder / "heads", folder / "store", Recipe.from_settings({**recipe.settings, "spacing_mm": 1.5}, "bench")
        )
        (folder / "done").touch()
    return open_store(folder / "store")


def train(job: Job) -> dict[str, Any]:
    """Trains for the job's CPU seconds and measures."""
    torch.set_num_threads(1)
    store = open_store(job.store)
    if job.method == FRESH:
        model = build_model(settings_of(FRESH, job.seed), stems_of(store))
        return {"method": job.method, "seed": job.seed, "steps": 0, **measure(model, store)}
    # How many steps the time gives decides the schedule, so a few are tried first.
    trial = settings_of(job.method, job.seed, 8)
    started = time.process_time()
    run(trial, store, 8, None)
    each = (time.process_time() - started) / 8
    steps = max(20, int(job.seconds / each))
    started = time.process_time()
    model = run(settings_of(job.method, job.seed, steps), store, steps, started + 1.02 * job.seconds)
    used = time.process_time() - started
    return {
        "method": job.method,
        "seed": job.seed,
        "steps": steps,
        "cpu_seconds": round(used, 1),
        **measure(model, store),
    }


def run(settings: PretrainSettings, store: Store, steps: int, until: float | None) -> SparK:
    """The model after so many updates, or when the time is up."""
    model = build_model(settings, stems_of(store)).train()
    plan = settings.mask_plan(model.encoder.cell)
    objective = Objective(settings, model, plan)
    optimizer = make_optimizer(objective, settings.optimizer)
    split = split_store(store, settings.box, settings.data.held_out_fraction, 0)
    crops = training_crops(settings, store, split)
    gate = HeldOut.of(
        store,
        split,
        settings.model_copy(update={"run": settings.run.model_copy(update={"held_out_crops": 3})}),
        plan,
    )
    for step in range(1, steps + 1):
        if (
            objective.projectors is not None
            and until is not None
            and step % max(1, steps // 10) == 0
            and not objective.contrast_open
        ):
            objective.measured(gate.measure(model, step)[0])
        first = (step - 1) * settings.data.batch
        batch = collate([crops[first + i] for i in range(settings.data.batch)])
        set_learning_rate(optimizer, rate_at(step, settings))
        optimizer.zero_grad(set_to_none=True)
        objective(batch, step).loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), settings.optimizer.clip)
        optimizer.step()
        objective.after_update(step)
        if until is not None and time.process_time() > until:
            break
    return model.eval()


def measure(model: SparK, store: Store) -> dict[str, float]:
    """The three measures, on the same crops for every method and seed."""
    settings = settings_of("reconstruction", 0)
    split = split_store(store, settings.box, settings.data.held_out_fraction, 0)
    line, _ = HeldOut.of(store, split, settings, settings.mask_plan(model.encoder.cell)).measure(model, 0)
    features, position, contrast, patients = [], [], [], []
    for region in split.held_out:
        volume = store[region.volume]
        rng = stream(0, purpose="position crops", volume=volume.content)
        whole = Region(volume=volume.id, start=(0, 0, 0), size=volume.size)
        for _ in range(12):
            free = [max(0, n - CROP) for n in volume.size]
            d, h, w = (int(rng.integers(0, f + 1)) for f in free)
            batch = collate([(0, read_crop(volume, whole, (d, h, w), (CROP,) * 3))])
            features.append(feature(model, batch))
            position.append(f"{min(2, 3 * h // max(1, free[1]))}{min(2, 3 * w // max(1, free[2]))}")
            contrast.append(volume.contrast)
            patients.append(volume.patient)
    rows = np.stack(features)
    return {
        "normalised_loss": line["normalised_loss"],
        "effective_rank": line["effective_rank"],
        "position": probe(rows, position, patients, "linear", draws=2).accuracy.value,
        "contrast": probe(rows, contrast, patients, "linear", draws=2).accuracy.value,
    }


@torch.no_grad()
def feature(model: SparK, batch: Any) -> np.ndarray:
    """The mean of the coarsest features over the cells that show the head."""
    head = target_cells(batch.foreground, model.encoder.cell)
    level = model.encoder(batch.voxels, torch.ones_like(head), modality=batch.modality)[-1]
    chosen = head.flatten() if head.any() else torch.ones_like(head).flatten()
    return places_of(level).features[chosen].mean(0).double().numpy()


def summary(rows: list[dict[str, Any]], against: str) -> list[dict[str, Any]]:
    """Mean and standard deviation of each method, and its paired difference to one of them with a 95 % interval."""
    lines = []
    base = {r["seed"]: r for r in rows if r["method"] == against}
    for method in dict.fromkeys(r["method"] for r in rows):
        own = [r for r in rows if r["method"] == method]
        line: dict[str, Any] = {"method": method, "steps": round(statistics.mean(r["steps"] for r in own))}
        for name in MEASURES:
            values = [r[name] for r in own]
            line[name] = {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}
            paired = [r[name] - base[r["seed"]][name] for r in own if r["seed"] in base]
            if method != against and len(paired) > 1:
                middle, spread = statistics.mean(paired), statistics.stdev(paired) / len(paired) ** 0.5
                half = float(stats.t.ppf(0.975, len(paired) - 1)) * spread
                lower = name == "normalised_loss"
                clear = "better" if (middle < 0) == lower else "worse"
                line[name] |= {
                    "difference": middle,
                    "low": middle - half,
                    "high": middle + half,
                    "verdict": "within noise" if abs(middle) <= half else clear,
                }
        lines.append(line)
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """For people."""
    heads = ("normalised loss", "position", "contrast")
    text = [f"{'':28}{'steps':>6}" + "".join(f"  {head:<30}" for head in heads)]
    for line in lines:
        cells = []
        for name in MEASURES:
            v = line[name]
            spread = "" if v["sd"] is None else f" ± {v['sd']:.3f}"
            cells.append(f"{v['mean']:.3f}{spread}  {v.get('verdict', '')}")
        text.append(f"{line['method']:28}{line['steps']:>6}" + "".join(f"  {cell:<30}" for cell in cells))
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=100.0, help="CPU seconds of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--patients", type=int, default=16)
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument(
        "--methods", nargs="+", default=[m for m in METHODS if m != "hard cells"], choices=list(METHODS)
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the heads go; made once")
    parser.add_argument("--output", type=Path, help="JSON")
    args = parser.parse_args()
    started = time.perf_counter()
    folder = args.folder / f"{args.patients}-patients"
    store = make_store(folder, args.patients)
    # Seeds outside, methods inside: what else the machine does falls on all methods alike.
    methods = [FRESH, *args.methods]
    jobs = [
        Job(method=m, seed=s, seconds=args.seconds, store=str(store.path)) for s in range(args.seeds) for m in methods
    ]
    rows = []
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        for row in pool.map(train, jobs):
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    lines = summary(rows, "reconstruction")
    words = ["python", "benchmarks/objectives.py", "--seconds", f"{args.seconds:g}", "--seeds", str(args.seeds)]
    words += ["--patients", str(args.patients), "--processes", str(args.processes), "--methods", *args.methods]
    document = {
        "command": shlex.join([*words, "--folder", "FOLDER", "--output", "benchmarks/results/objectives.json"]),
        "what": "equal CPU time of one thread each, loading included; measures on held-out patients; differences to `reconstruction`, paired by seed",
        "wavespark": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu_seconds_each": args.seconds,
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "chance": {"position": 1 / 9, "contrast": 1 / 3, "normalised_loss": 1.0},
        "summary": lines,
        "runs": rows,
    }
    if args.output:
        args.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(lines))


if __name__ == "__main__":
    main()
