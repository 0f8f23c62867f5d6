"""Transfer to real people: tissue with few labels, sex, age, diagnosis and contrast, beside every
control.

The folder of people holds public data (see `SOURCES`). Pre-training takes ds000011 alone; ds002748
and the slabs are tested on and never pre-trained on. Every measured part is kept as a file, so that
a stopped benchmark continues.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wavespark.bench.environment import describe_environment
from wavespark.bench.people_arms import Arms, frozen_tissue, summarise, tuned_rows
from wavespark.bench.transfer_people_page import people_page
from wavespark.config import load_pretraining
from wavespark.config.downstream import finetune_settings
from wavespark.downstream.features import DEFAULT_POOLS
from wavespark.downstream.fitting import fit
from wavespark.downstream.heads import copied
from wavespark.downstream.items import Labelled, with_maps
from wavespark.downstream.labels import read_labels
from wavespark.downstream.segment import Segment
from wavespark.downstream.study import Plan, run_study
from wavespark.engine import load_encoder, pretrain, seconds_per_step
from wavespark.errors import SettingsError
from wavespark.files import write_file
from wavespark.models import Encoder
from wavespark.prepare import Recipe, Store, open_store, prepare
from wavespark.progress import OnProgress, ignore_progress

SOURCES = {
    "ds002748": "OpenNeuro ds002748 (T1 of 72 people, CC0), brain-extracted, with participants.csv: source, age, sex, group",
    "ds000011": "OpenfMRI ds000011 (T1 and T2 of 14 people, PDDL), with participants.csv: source, age, sex",
    "slabs": "tutorial data of ANTs (joint label fusion; github.com/ntustison), slabs with labels.csv: source, label",
}
"""Folders that the benchmark needs, where they come from and what lies in them."""
OPTIONAL = "ms"
"""Several contrasts of two people (Lesjak et al., Neuroinformatics 2017); adds FLAIR to the
question of contrast."""
SPACING_MM = 1.5
WINDOW = (64, 64, 16)
_SHARE_OF_PRETRAINING = 0.4
_MOST_STEPS, _FEWEST_STEPS = 300, 20


@dataclass(frozen=True, kw_only=True, slots=True)
class PeopleBench:
    """Settings of the benchmark."""

    people: Path
    """Folder with the sets of `SOURCES`."""
    encoder: Path | None = None
    """Export to evaluate; None pre-trains one."""
    minutes: float = 90.0
    """Minutes for the whole benchmark with one pre-training; each further one adds its share."""
    labels: tuple[int, ...] = (1, 2, 4, 8)
    """Labelled people of the tissue task."""
    seeds: int = 1
    """Fine-tunings of each arm and number of labelled people."""
    pretraining_seeds: int = 1
    """Pre-trainings, for intervals over them."""
    model: str = "waveformer_tiny"
    """Encoder that is pre-trained."""
    test_people: int = 10
    """People whose slabs are tested on: the first by the hash of their voxels."""
    repeats: int = 20
    """Repeats of the cross-validation of frozen features."""
    quick: bool = False
    """Smoke run: a few steps and repeats; its figures mean nothing."""
    tune: bool = False
    """Choose the learning rate of each fine-tuning by cross-validation among its labelled people;
    takes several times as long."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self) -> None:
        if self.minutes <= 0 or min(self.seeds, self.pretraining_seeds, self.repeats) < 1 or self.test_people < 2:
            raise SettingsError(
                f"minutes {self.minutes} must be positive, seeds {self.seeds}, pre-training seeds {self.pretraining_seeds} and "
                f"repeats {self.repeats} at least 1, test people {self.test_people} at least 2"
            )
        if not self.labels or min(self.labels) < 1:
            raise SettingsError(f"labelled people {self.labels} must be at least 1")
        if self.encoder is not None and self.pretraining_seeds > 1:
            raise SettingsError(
                "--encoder evaluates one encoder: leave out --pretraining-seeds, or leave out --encoder"
            )
        check_people(self.people)

    @property
    def command(self) -> str:
        """The command that measures this again, without paths of this machine."""
        words = [
            "wavespark bench transfer --people FOLDER",
            f"--minutes {self.minutes:g}",
            f"--seeds {self.seeds}",
            f"--seed {self.seed}",
        ]
        words += ["--encoder EXPORT"] if self.encoder else [f"--pretraining-seeds {self.pretraining_seeds}"]
        return " ".join([*words, *(["--quick"] if self.quick else []), *(["--tune"] if self.tune else [])])

    def shortened(self) -> "PeopleBench":
        """The smoke run of these settings."""
        return replace(self, labels=self.labels[:2], seeds=1, repeats=2, minutes=min(self.minutes, 2.0))


def check_people(folder: Path) -> None:
    """Check that the folder holds the sets that the benchmark needs.

    Raises:
        SettingsError: if a set or its table is missing; the sentence says where it comes from.
    """
    for name, source in SOURCES.items():
        table = folder / name / ("labels.csv" if name == "slabs" else "participants.csv")
        if not table.is_file():
            raise SettingsError(
                f"--people {folder}: there is no {name}/{table.name}. {name} is {source}. Crop, resample to about {SPACING_MM} mm "
                "(slabs 1 mm) and save NIfTI files beside the table; or leave out --people for the synthetic tasks"
            )


class _Clock:
    """Minutes passed, for progress with time left and for sharing out the budget."""

    def __init__(self, minutes: float, on_progress: OnProgress) -> None:
        self.started, self.minutes, self.on_progress = time.monotonic(), minutes, on_progress

    def passed(self) -> float:
        """Minutes since the start."""
        return (time.monotonic() - self.started) / 60

    def say(self, message: str) -> None:
        """Report progress."""
        self.on_progress(min(self.passed(), 0.999 * self.minutes), self.minutes, message)

    def stage(self, name: str) -> OnProgress:
        """A progress callback that reports its messages under the name."""

        def report(done: float, total: float, message: str = "") -> None:
            self.say(f"{name}: {message}")

        return report


def measure_people(bench: PeopleBench, folder: Path, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """Measure everything into a folder; finished parts are read from it.

    Args:
        bench: settings.
        folder: stores, pre-trainings, fine-tunings, parts, `people.json` and `people.html`.
        on_progress: called with (minutes passed, minutes in all, message).

    Returns:
        Plain values: `results` (a row a task, mode and number of labels: every arm and every gain
            with its interval), `pretraining`, `environment`.
    """
    bench = bench.shortened() if bench.quick else bench
    clock = _Clock(bench.minutes * (1 + 0.7 * (bench.pretraining_seeds - 1)), on_progress)
    _settle(bench, folder)
    stores = {
        name: _store(bench.people / name, folder / "data" / name, clock)
        for name in (*SOURCES, OPTIONAL)
        if (bench.people / name).is_dir()
    }
    encoders, about = _encoders(bench, stores["ds000011"], folder, clock)
    arms = Arms(encoders=encoders, seed=bench.seed, parts=folder / "parts")
    rows = summarise(arms, bench.people, stores, bench.repeats, bench.seed, clock.stage("frozen"))
    train, test = slab_people(bench, stores["slabs"])
    labels = tuple(sorted({min(n, len(train)) for n in bench.labels}))
    rows += frozen_tissue(arms, train, test, labels, bench.seed, clock.stage("frozen tissue"))
    tuned, studies = _fine_tuned(bench, encoders, train, test, labels, folder, clock)
    document = {
        "bench": "transfer",
        "data": "people",
        "what": _sentence(bench, len(stores["ds000011"])),
        "command": bench.command,
        "quick": bench.quick,
        "pretraining": about,
        "results": [*tuned, *rows],
        "test_people": len(test),
        "minutes": round(clock.passed(), 1),
        "environment": describe_environment(),
    }
    write_file(folder / "people.json", json.dumps(document, indent=1, allow_nan=False).encode())
    write_file(folder / "people.html", people_page(document, studies).encode())
    on_progress(clock.minutes, clock.minutes, "done")
    return document


def _sentence(bench: PeopleBench, volumes: int) -> str:
    if bench.encoder is not None:
        return "A given encoder, frozen and fine-tuned, beside its controls, on people whom this benchmark never pre-trains on"
    return (
        f"{bench.model} pre-trained on {volumes} volumes of 14 people (ds000011), {bench.pretraining_seeds} time(s), frozen and "
        "fine-tuned on other people, beside its controls"
    )


def _settle(bench: PeopleBench, folder: Path) -> None:
    """Refuse a folder that holds the parts of other settings."""
    encoder = None if bench.encoder is None else _content(bench.encoder)
    identity = {
        "labels": list(bench.labels), "seeds": bench.seeds, "model": bench.model, "test_people": bench.test_people, "repeats": bench.repeats,
        "seed": bench.seed, "quick": bench.quick, "tune": bench.tune, "encoder": encoder, "pools": list(DEFAULT_POOLS),
    }  # fmt: skip
    path = folder / "people_settings.json"
    if path.is_file() and (before := json.loads(path.read_bytes())) != identity:
        changed = [key for key in identity if before.get(key) != identity[key]]
        raise SettingsError(
            f"{folder} holds a benchmark with another {', '.join(changed)}: use another --folder, or the same settings"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(identity).encode())


def _content(export: Path) -> str:
    """A hash of an encoder's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_encoder(export).state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _store(source: Path, folder: Path, clock: _Clock) -> Store:
    """Prepare the NIfTI files that lie directly in a folder (label maps lie below it)."""
    clock.say(f"preparing {source.name}")
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.nii.gz")):
        if not (files / path.name).exists():
            shutil.copyfile(path, files / path.name)
    recipe = Recipe.from_settings({"name": "people", "spacing_mm": SPACING_MM})
    prepare([str(files)], folder / "store", recipe, workers=0)
    return open_store(folder / "store")


def slab_people(bench: PeopleBench, store: Store) -> tuple[list[Labelled], list[Labelled]]:
    """Slabs to learn from and to test on: people in the order of the hash of their voxels, the
    first ones tested."""
    items = with_maps(read_labels(bench.people / "slabs" / "labels.csv", store), store, "label")
    ordered = sorted(items, key=lambda item: item.volume.content)
    count = min(bench.test_people, len(ordered) // 2)
    if count < 2:
        raise SettingsError(f"{bench.people / 'slabs'} labels {len(ordered)} people: the benchmark needs at least four")
    return ordered[count:], ordered[:count]


def _encoders(
    bench: PeopleBench, store: Store, folder: Path, clock: _Clock
) -> tuple[list[Encoder], list[dict[str, Any]]]:
    if bench.encoder is not None:
        return [load_encoder(bench.encoder).eval()], []
    encoders, about = [], []
    for seed in range(bench.seed, bench.seed + bench.pretraining_seeds):
        seconds = bench.minutes * 60 * _SHARE_OF_PRETRAINING
        encoder, summary = _pretrained(bench, seed, store, folder / f"pretraining-{seed}", seconds, clock)
        encoders.append(encoder.eval())
        about.append(summary)
    return encoders, about


def _pretrained(
    bench: PeopleBench, seed: int, store: Store, run: Path, seconds: float, clock: _Clock
) -> tuple[Encoder, dict[str, Any]]:
    words = [
        f"model.name={bench.model}", "data.crop=[48, 48, 48]", "data.batch=4", "data.workers=1", "run.held_out_crops=6",
        "run.tensorboard=false", f"run.seed={seed}",
    ]  # fmt: skip
    if (run / "config.toml").exists():
        settings = load_pretraining(run / "config.toml")
    else:
        steps = 4
        if not bench.quick:
            clock.say("pre-training: measuring a step")
            steps = max(10, int(seconds / seconds_per_step(load_pretraining("tiny-cpu", words), store)))
        settings = load_pretraining(
            "tiny-cpu", [*words, f"run.steps={steps}", f"run.validate_every={max(2, steps // 4)}"]
        )
    result = pretrain(settings, store, run, on_progress=clock.stage(f"pre-training {seed}"))
    summary = {
        "seed": seed,
        "steps": result.steps,
        "volumes": len(store),
        "normalised_loss": [result.first.get("normalised_loss"), result.last.get("normalised_loss")],
        "harmonic_inpainting": result.last.get("harmonic_own_mean"),
    }
    return load_encoder(run / "exports" / "encoder"), summary


def _fine_tuned(
    bench: PeopleBench,
    encoders: Sequence[Encoder],
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    labels: tuple[int, ...],
    folder: Path,
    clock: _Clock,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and study results of the fine-tuned arms; scratch and plain are trained beside the first
    pre-training."""
    steps = _steps(bench, encoders[0], train, len(labels) * bench.seeds * 3, folder, clock)
    task = Segment.of([*train, *test], _settings(bench, steps))
    studies = []
    for number, encoder in enumerate(encoders):
        first = number == 0
        plan = Plan(labels=labels, seeds=bench.seeds, control=first, plain=first, tune=bench.tune)
        name = f"fine-tuned {number}"
        studies.append(
            run_study(task, encoder, train, test, plan, folder / name.replace(" ", "-"), on_progress=clock.stage(name))
        )
    runs = [folder / f"fine-tuned-{number}" for number in range(len(encoders))]
    return tuned_rows(runs, labels, bench.seeds, bench.seed), studies


def _settings(bench: PeopleBench, steps: int) -> Any:
    crop = ", ".join(map(str, WINDOW))
    return finetune_settings([f"data.crop=[{crop}]", "data.batch=2", f"run.steps={steps}", f"run.seed={bench.seed}"])


def _steps(
    bench: PeopleBench, encoder: Encoder, train: Sequence[Labelled], trainings: int, folder: Path, clock: _Clock
) -> int:
    """Steps of each fine-tuning: 300, or what the time allows; measured once and kept."""
    path = folder / "steps.json"
    if path.is_file():
        return int(json.loads(path.read_bytes())["steps"])
    steps = 3
    if not bench.quick:
        clock.say("fine-tuning: measuring a step")
        few = 3
        task = Segment.of(train, _settings(bench, few))
        fit(task, copied(encoder), train[:1], seed=0, pretrained=True)
        begun = time.monotonic()
        fit(task, copied(encoder), train[:1], seed=0, pretrained=True)
        each = (time.monotonic() - begun) / few
        left = 60 * max(0.3 * bench.minutes, bench.minutes - clock.passed()) * 0.85
        steps = int(np.clip(left / trainings / each, _FEWEST_STEPS, _MOST_STEPS))
    write_file(path, json.dumps({"steps": steps}).encode())
    return steps
