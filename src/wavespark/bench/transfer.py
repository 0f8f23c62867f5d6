"""Does pre-training pay here? Synthetic vessels, aneurysms, and tissue of the real MNI152 brain:
pre-trained against random weights at equal budget.

For every task and number of labels: frozen features read by a linear layer, and the whole network
fine-tuned with a light decoder; the same head, steps and windows in both arms, several seeds,
differences paired on the test volumes. Synthetic heads to pre-train, train and test on are other
anatomies; tissue is of blocks of one brain, all of which are pre-trained on without labels, those
of the test too. A synthetic task says nothing about finding aneurysms in patients.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from wavespark.bench.environment import describe_environment
from wavespark.bench.transfer_page import transfer_page
from wavespark.config import load_pretraining
from wavespark.config.downstream import FinetuneSettings, finetune_settings
from wavespark.downstream.detect import Detect
from wavespark.downstream.figures import make_row
from wavespark.downstream.fitting import Task, fit
from wavespark.downstream.heads import copied
from wavespark.downstream.items import Labelled, with_map
from wavespark.downstream.segment import Segment
from wavespark.downstream.study import Plan, run_study
from wavespark.engine import load_encoder, pretrain, seconds_per_step
from wavespark.errors import SettingsError
from wavespark.files import read_secret, write_file
from wavespark.models import Encoder
from wavespark.prepare import Recipe, Store, open_store, prepare
from wavespark.progress import OnProgress, ignore_progress
from wavespark.samples import SyntheticHead, mni152_brain, synthetic_head, write_nifti
from wavespark.volumes import source_id

TASKS = ("vessels", "tissue", "aneurysm")
MODES = ("frozen", "fine-tuned")

_SHAPE, _SPACING = (72, 80, 52), (1.6, 1.6, 1.6)
_FIRST_PRETRAINED, _FIRST_TRAIN, _FIRST_TEST = 1000, 3000, 5000
_STEPS = (15, 300)
_SHARE_OF_PRETRAINING = 0.35


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferBench:
    """Settings of a transfer benchmark: tasks, budget and length."""

    minutes: float = 50.0
    tasks: tuple[str, ...] = TASKS
    labels: tuple[int, ...] = (1, 2, 4, 8)
    seeds: int = 3
    model: str = "waveformer_tiny"
    pretraining_heads: int = 24
    test_heads: int = 10
    """Test heads of the vessel task, and the largest number of test blocks of the tissue task."""
    aneurysm_heads: int = 40
    """Test heads where aneurysms are the task: each has one at most, so that a head counts for less
    than one with its vessels."""
    crop: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.tasks or set(self.tasks) - set(TASKS):
            raise SettingsError(f"tasks {self.tasks} must be some of {', '.join(TASKS)}")
        if (
            self.minutes <= 0
            or self.seeds < 1
            or min(self.test_heads, self.aneurysm_heads) < 2
            or self.pretraining_heads < 5
            or min(self.labels, default=0) < 1
        ):
            raise SettingsError(
                f"minutes {self.minutes} must be positive, seeds {self.seeds} and labels {self.labels} at least 1, "
                f"test heads {self.test_heads} and {self.aneurysm_heads} at least 2, pre-training heads {self.pretraining_heads} at least 5"
            )

    @property
    def trainings(self) -> int:
        """How many networks are trained after pre-training."""
        return len(self.tasks) * len(MODES) * 2 * len(self.labels) * self.seeds

    @property
    def command(self) -> str:
        """Command that repeats the measurement."""
        words = [
            "wavespark bench transfer",
            f"--minutes {self.minutes:g}",
            f"--seeds {self.seeds}",
            f"--seed {self.seed}",
        ]
        if self.tasks != TASKS:
            words += [f"--task {task}" for task in self.tasks]
        return " ".join(words)


def measure_transfer(bench: TransferBench, folder: Path, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """Everything, into a folder that keeps what is done: stopped, the same command goes on.

    Args:
        bench: what to compare.
        folder: for heads, stores, the run and all comparisons.
        on_progress: called with (done, total, message).

    Returns:
        Plain values: `results` (a row a task, mode and number of labels, with the paired interval),
            `pretraining`, `environment`.
    """
    started = time.monotonic()

    def passed(text: str) -> None:
        on_progress(min((time.monotonic() - started) / 60, 0.999 * bench.minutes), bench.minutes, text)

    passed("synthetic heads")
    sets = {task: _data(bench, task, folder / "data" / task, passed) for task in bench.tasks}
    unlabelled = _pretraining_store(bench, folder / "data" / "pretraining", passed)
    left = bench.minutes * 60 - (time.monotonic() - started)
    encoder, summary = _pretrained(bench, unlabelled, folder / "run", left * _SHARE_OF_PRETRAINING, passed)
    rows: list[dict[str, Any]] = []
    curves: dict[str, dict[str, Any]] = {}
    to_train = bench.trainings
    for task_name, (train, test) in sets.items():
        for mode in MODES:
            output = folder / f"{task_name}-{mode}"
            seconds = (bench.minutes * 60 - (time.monotonic() - started)) / to_train
            to_train -= bench.trainings // (len(bench.tasks) * len(MODES))
            results = _compared(bench, task_name, mode, encoder, train, test, output, seconds, passed)
            curves[f"{task_name}, {mode}"] = results
            rows += _rows(task_name, mode, results)
    some = ", ".join(map(str, bench.labels))
    document = {
        "bench": "transfer",
        "what": f"{bench.model} pre-trained on {len(unlabelled)} unlabelled volumes, against random weights, with {some} labelled volumes",
        "command": bench.command,
        "met": all(r["above_zero"] for r in rows if r["mode"] == "frozen"),
        "target": "with 1-8 labelled volumes frozen pre-trained features beat random ones, 95 % interval above zero",
        "pretraining": summary,
        "results": rows,
        "seeds": bench.seeds,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "environment": describe_environment(),
    }
    write_file(folder / "transfer.json", json.dumps(document, indent=1, allow_nan=False).encode())
    write_file(folder / "transfer.html", transfer_page(document, curves).encode())
    on_progress(bench.minutes, bench.minutes, "done")
    return document


def _pretraining_store(bench: TransferBench, folder: Path, passed: Callable[[str], None]) -> Store:
    """Unlabelled heads with and without aneurysms, and the real brain where the extra `samples` is
    installed."""
    done = folder / "heads" / ".complete"
    if not done.exists():
        for k in range(bench.pretraining_heads):
            passed(f"head {k + 1} of {bench.pretraining_heads} to pre-train on")
            head = _head(_FIRST_PRETRAINED + k, "random" if k % 2 else None)
            write_nifti(head, folder / "heads" / f"sub-{k:03d}" / f"sub-{k:03d}_tof.nii.gz")
        if "tissue" in bench.tasks:
            for k, (voxels, _, affine) in enumerate(_brain_blocks()):
                _save(voxels, affine, folder / "heads" / f"sub-b{k:02d}" / f"sub-b{k:02d}_T1w.nii.gz")
        done.touch()
    return _prepared(folder)


def _head(seed: int, aneurysm: Literal["random"] | None) -> SyntheticHead:
    return synthetic_head(seed, "TOF-MRA", shape=_SHAPE, spacing=_SPACING, aneurysm=aneurysm)


def _prepared(folder: Path) -> Store:
    recipe = Recipe.from_settings({"name": "bench", "spacing_mm": "own", "foreground": {"crop": False}})
    prepare([str(folder / "heads")], folder / "store", recipe, workers=2)
    return open_store(folder / "store")


def _save(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, code=1)
    nib.save(image, path)


def _brain_blocks() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The MNI152 brain in blocks of 48 mm that are at least half brain: T1 int16, tissue uint8 (1
    grey, 2 white matter), affine."""
    t1, gm, wm = (nib.load(mni152_brain(k)) for k in ("t1", "gm", "wm"))  # type: ignore[arg-type]
    voxels, affine = np.asarray(t1.dataobj, np.float32), np.asarray(t1.affine)  # type: ignore[attr-defined]
    grey, white = (np.asarray(m.dataobj, np.float32) for m in (gm, wm))  # type: ignore[attr-defined]
    scale = max(float(grey.max()), float(white.max()))
    tissue = np.where(np.maximum(grey, white) < 0.5 * scale, 0, np.where(grey >= white, 1, 2)).astype(np.uint8)
    voxels = voxels * np.float32(1000 / voxels.max())
    blocks = []
    for corner in np.ndindex(*(n // 48 for n in voxels.shape)):
        box = tuple(slice(48 * c, 48 * c + 48) for c in corner)
        if (voxels[box] > 0).mean() >= 0.5:
            shift = np.eye(4)
            shift[:3, 3] = [48 * c for c in corner]
            blocks.append((np.rint(voxels[box]).astype(np.int16), tissue[box], affine @ shift))
    return blocks


def _data(
    bench: TransferBench, task: str, folder: Path, passed: Callable[[str], None]
) -> tuple[list[Labelled], list[Labelled]]:
    """Training and test items of a task, written and prepared like any other data."""
    most = max(bench.labels)
    if task == "tissue":
        return _tissue(bench, folder, most)
    tested = bench.aneurysm_heads if task == "aneurysm" else bench.test_heads
    seeds = [*range(_FIRST_TRAIN, _FIRST_TRAIN + most), *range(_FIRST_TEST, _FIRST_TEST + tested)]
    heads: dict[str, SyntheticHead] = {}
    for number, seed in enumerate(seeds, 1):
        passed(f"{task}: head {number} of {len(seeds)}")
        # Every head with an aneurysm where it must be found, save a third of the test heads; none
        # where vessels are the task.
        sick = task == "aneurysm" and (seed < _FIRST_TEST or seed % 3)
        name = f"sub-{seed}/sub-{seed}_tof.nii.gz"
        heads[name] = _head(seed, "random" if sick else None)
        if not (folder / "heads" / name).exists():
            write_nifti(heads[name], folder / "heads" / name)
    store = _prepared(folder)
    by_name = _by_name(store)
    items = []
    for name, head in heads.items():
        volume = store[by_name(name)]
        if task == "vessels":
            items.append(with_map(volume, head.vessels, head.affine))
            continue
        spots = np.empty((0, 4)) if head.sac is None else np.array([[*head.sac[0], head.sac[1]]])
        back = np.linalg.inv(volume.affine)
        points = (spots[:, :3] @ back[:3, :3].T + back[:3, 3]).astype(np.float32)
        inside = ((points >= 0) & (points < volume.size)).all(1)
        reach = np.maximum(spots[:, 3] / 2, 4.0).astype(np.float32)
        items.append(Labelled(volume=volume, points=points[inside], reach_mm=reach[inside]))
    return items[:most], items[most:]


def _by_name(store: Store) -> Callable[[str], str]:
    secret = read_secret(store.path)
    return lambda name: source_id(secret, name)


def _tissue(bench: TransferBench, folder: Path, most: int) -> tuple[list[Labelled], list[Labelled]]:
    """Blocks of one brain: other places, not other people."""
    blocks = _brain_blocks()
    order = np.random.default_rng(bench.seed).permutation(len(blocks))
    for k in order:
        path = folder / "heads" / f"sub-b{k:02d}" / f"sub-b{k:02d}_T1w.nii.gz"
        if not path.exists():
            _save(blocks[k][0], blocks[k][2], path)
    store = _prepared(folder)
    by_name = _by_name(store)
    items = [
        with_map(store[by_name(f"sub-b{k:02d}/sub-b{k:02d}_T1w.nii.gz")], blocks[k][1], blocks[k][2]) for k in order
    ]
    if len(items) < most + 2:
        raise SettingsError(f"the brain has {len(items)} blocks: label at most {len(items) - 2}")
    return items[:most], items[most : most + bench.test_heads]


def _pretrained(
    bench: TransferBench, store: Store, run: Path, seconds: float, passed: Callable[[str], None]
) -> tuple[Encoder, dict[str, Any]]:
    words = [
        f"model.name={bench.model}",
        "data.crop=[48, 48, 48]",
        "data.batch=4",
        "data.workers=1",
        "run.held_out_crops=6",
        "run.tensorboard=false",
        f"run.seed={bench.seed}",
    ]
    if (run / "config.toml").exists():
        settings = load_pretraining(run / "config.toml")
    else:
        each = seconds_per_step(load_pretraining("tiny-cpu", words), store)
        steps = max(10, int(seconds / each))
        settings = load_pretraining(
            "tiny-cpu", [*words, f"run.steps={steps}", f"run.validate_every={max(5, steps // 4)}"]
        )

    def on_progress(done: float, total: float, text: str) -> None:
        passed(f"pre-training, {text}")

    found = pretrain(settings, store, run, on_progress=on_progress)
    summary = {
        "steps": found.steps,
        "seconds_per_step": found.seconds_per_step,
        "volumes": len(store),
        "normalised_loss": [found.first.get("normalised_loss"), found.last.get("normalised_loss")],
        "harmonic_inpainting": found.last.get("harmonic_own_mean"),
    }
    return load_encoder(run / "exports" / "encoder"), summary


def _compared(
    bench: TransferBench,
    task_name: str,
    mode: str,
    encoder: Encoder,
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    output: Path,
    seconds: float,
    passed: Callable[[str], None],
) -> dict[str, Any]:
    def make(steps: int) -> Task:
        settings = _settings(bench, mode, steps)
        return Detect(settings=settings) if task_name == "aneurysm" else Segment.of([*train, *test], settings)

    steps_file = output / "steps.json"
    if steps_file.exists():
        steps = int(json.loads(steps_file.read_bytes())["steps"])
    else:
        passed(f"{task_name}, {mode}: how long a step and a test take")
        fit(make(1), copied(encoder), train, seed=0, pretrained=True)
        few = 4
        begun = time.monotonic()
        model = fit(make(few), copied(encoder), train, seed=0, pretrained=True).model
        trained = time.monotonic()
        for item in test[:2]:
            make_row(make(few), make(few).predict(model, item.volume), item)
        testing = (time.monotonic() - trained) / len(test[:2]) * len(test)
        each = (trained - begun) / few
        steps = int(min(max((seconds - testing) / each, _STEPS[0]), _STEPS[1]))
        output.mkdir(parents=True, exist_ok=True)
        write_file(steps_file, json.dumps({"steps": steps, "seconds_per_step": round(each, 4)}).encode())

    def on_progress(done: float, total: float, text: str) -> None:
        passed(f"{task_name}, {mode}, {text}")

    plan = Plan(labels=bench.labels, seeds=bench.seeds)
    return run_study(make(steps), encoder, train, test, plan, output, on_progress=on_progress)


def _settings(bench: TransferBench, mode: str, steps: int) -> FinetuneSettings:
    """A linear layer learns fast; the whole network gets warm-up and layer-wise decay in the
    pre-trained arm."""
    frozen = mode == "frozen"
    words = [
        f"data.crop=[{bench.crop}, {bench.crop}, {bench.crop}]",
        "data.batch=4",
        "data.flip=0.5",
        "run.overlap=0",
        f"run.steps={steps}",
        f"run.seed={bench.seed}",
        f"optimizer.learning_rate={2e-2 if frozen else 2e-3}",
    ]
    return finetune_settings(words, frozen=frozen, decoder="linear" if frozen else "light")


def _rows(task: str, mode: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    name = results["main"]
    value = {(r["arm"], r["labels"]): r["figures"].get(name, {}) for r in results["table"]}
    rows = []
    for row in results["gains"]:
        found = row["figures"].get(name, {"value": None, "low": None, "high": None, "patients": 0})
        rows.append(
            {
                "task": task,
                "mode": mode,
                "labels": row["labels"],
                "figure": name,
                "pretrained": value["pre-trained", row["labels"]].get("value"),
                "scratch": value["scratch", row["labels"]].get("value"),
                "gain": found,
                "above_zero": found["low"] is not None and found["low"] > 0,
                "steps": results["steps"],
                "test_volumes": results["test_volumes"],
            }
        )
    return rows
