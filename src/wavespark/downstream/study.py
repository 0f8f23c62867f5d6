"""Fine-tuning as a comparison: pre-trained against scratch at equal budget, for every number of labels and every seed; stopped, it goes on where it was.

RUN holds `study.json` (what is compared), `parts/ARM-LABELS-SEED.json` (one training each, with every test volume's figures), `model/` (the
pre-trained arm with all labels), `results.json`, `report.html`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavespark.downstream.figures import Row, gain, intervals, make_row, over_seeds
from wavespark.downstream.fitting import Task, fit
from wavespark.downstream.heads import copied, untrained
from wavespark.downstream.items import Labelled
from wavespark.downstream.saving import CONFIG, save_model
from wavespark.errors import SettingsError
from wavespark.files import write_file, writing
from wavespark.metrics.intervals import Interval
from wavespark.models import Encoder
from wavespark.progress import OnProgress, ShouldStop, ignore_progress, never_stop
from wavespark.randomness import stream

OURS, THEIRS = "pre-trained", "scratch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is compared."""

    labels: tuple[int, ...] = ()
    """Labelled volumes of each training; none: all there are, once."""
    seeds: int = 1
    control: bool = True

    def __post_init__(self) -> None:
        if self.seeds < 1 or any(n < 1 for n in self.labels):
            raise SettingsError(f"labels per run {self.labels} and seeds {self.seeds} must be at least 1")

    def counts(self, available: int) -> tuple[int, ...]:
        """Numbers of labelled volumes, ascending, at most those there are."""
        return tuple(sorted({min(n, available) for n in self.labels} or {available}))

    @property
    def arms(self) -> tuple[str, ...]:
        """In the order in which they are trained."""
        return (OURS, THEIRS) if self.control else (OURS,)


def labels_per_run(text: str, available: int) -> tuple[int, ...]:
    """`1,2,4,all` as numbers.

    >>> labels_per_run("1,4,all", 9)
    (1, 4, 9)

    Raises:
        SettingsError: if it is none.
    """
    words = [w.strip() for w in text.split(",") if w.strip()]
    if not words or not all(w == "all" or (w.isdecimal() and int(w) > 0) for w in words):
        raise SettingsError(
            f"--labels-per-run {text!r} is not possible: write numbers and `all`, for example 1,2,4,8,all"
        )
    return tuple(available if w == "all" else int(w) for w in words)


def run_study(
    task: Task,
    encoder: Encoder,
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    plan: Plan,
    run: Path,
    *,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> dict[str, Any]:
    """Trains and tests every arm, and returns (and writes) the results.

    Args:
        task: what is learned.
        encoder: pre-trained; is not changed.
        train: labelled volumes; each training takes the first ones of an order that its seed decides.
        test: volumes of other patients.
        plan: what is compared.
        run: folder for everything.
        on_progress: called with (done, total, message).
        should_stop: a name (of a signal) ends it; what is trained is kept.

    Raises:
        SettingsError: if the folder holds another comparison.
        TrainingStopped: if `should_stop` asked for it, or a loss is not finite.
    """
    with writing(run):
        (run / "parts").mkdir(parents=True, exist_ok=True)
    _settle(run, _identity(task, encoder, train, test, plan))
    counts = plan.counts(len(train))
    trainings = [(arm, n, seed) for n in counts for seed in range(plan.seeds) for arm in plan.arms]
    steps = task.settings.run.steps
    total = len(trainings) * steps
    parts: dict[tuple[str, int, int], dict[str, Any]] = {}
    for number, (arm, n, seed) in enumerate(trainings):
        keep = (arm, n, seed) == (OURS, counts[-1], 0)
        path = run / "parts" / f"{arm}-{n}-{seed}.json"
        what = f"{arm}, {n} labelled volume(s), seed {seed}"
        if not path.exists() or (keep and not (run / "model" / CONFIG).exists()):

            def say(done: float, of: float, text: str, base: int = number * steps, what: str = what) -> None:
                on_progress(base + done, total, f"{what}: {text}")

            part = _train_and_test(
                task, encoder, train, test, arm, n, seed, run / "model" if keep else None, say, should_stop
            )
            write_file(path, json.dumps(part, allow_nan=False).encode())
        parts[arm, n, seed] = json.loads(path.read_bytes())
        on_progress((number + 1) * steps, total, what)
    results = summarise(task, parts, counts, plan, len(train), task.settings.run.seed)
    write_file(run / "results.json", json.dumps(results, indent=1, allow_nan=False).encode())
    return results


def _train_and_test(
    task: Task,
    encoder: Encoder,
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    arm: str,
    n: int,
    seed: int,
    keep: Path | None,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> dict[str, Any]:
    settings = task.settings
    own = settings.run.seed * 1000 + seed
    order = stream(own, purpose="which are labelled").permutation(len(train))
    chosen = [train[k] for k in order[:n]]
    start = copied(encoder) if arm == OURS else untrained(encoder, own)
    done = fit(task, start, chosen, seed=own, pretrained=arm == OURS, on_progress=on_progress, should_stop=should_stop)
    rows: list[Row] = []
    for item in test:
        on_progress(settings.run.steps, settings.run.steps, f"testing on volume {len(rows) + 1} of {len(test)}")
        rows.append(make_row(task, task.predict(done.model, item.volume), item))
    if keep:
        provenance = {
            "steps": settings.run.steps,
            "volumes": n,
            "patients": len({i.volume.patient for i in chosen}),
            "test_volumes": len(test),
            "start": "the encoder frozen" if settings.frozen else "from a pre-trained encoder",
        }
        save_model(keep, task, done.model, provenance)
    return {
        "arm": arm,
        "labels": n,
        "seed": seed,
        "loss": [round(x, 5) for x in done.losses],
        "seconds": round(done.seconds, 2),
        "rows": rows,
    }


def summarise(
    task: Task,
    parts: Mapping[tuple[str, int, int], dict[str, Any]],
    counts: Sequence[int],
    plan: Plan,
    available: int,
    seed: int,
) -> dict[str, Any]:
    """The figures of every arm and number of labels, and their paired differences, with 95 % intervals over the test patients."""
    table, gains = [], []
    for n in counts:
        found = {arm: over_seeds(task, [parts[arm, n, s]["rows"] for s in range(plan.seeds)]) for arm in plan.arms}
        patients = [row["patient"] for row in parts[OURS, n, 0]["rows"]]
        for arm, of_arm in found.items():
            each = intervals(of_arm, patients, seed)
            table.append({"arm": arm, "labels": n, "figures": {name: i.to_json() for name, i in each.items()}})
        if plan.control:
            better: dict[str, Interval] = {
                name: gain(found[OURS][name], found[THEIRS][name], patients, seed)
                for name in found[OURS]
                if name in found[THEIRS]
            }
            gains.append({"labels": n, "figures": {name: i.to_json() for name, i in better.items()}})
    first = parts[OURS, counts[0], 0]["rows"]
    return {
        "task": task.describe(),
        "main": task.main,
        "steps": task.settings.run.steps,
        "frozen": task.settings.frozen,
        "decoder": task.settings.decoder,
        "seeds": plan.seeds,
        "labelled_volumes": available,
        "test_volumes": len(first),
        "test_patients": len({row["patient"] for row in first}),
        "table": table,
        "gains": gains,
    }


def _identity(
    task: Task, encoder: Encoder, train: Sequence[Labelled], test: Sequence[Labelled], plan: Plan
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    settings = task.settings.model_dump(mode="json")
    for group, key in (("run", "threads"), ("run", "device"), ("data", "workers")):
        settings[group].pop(key)
    return {
        "task": task.describe(),
        "settings": settings,
        "encoder": digest.hexdigest(),
        "train": [i.volume.content for i in train],
        "test": [i.volume.content for i in test],
        "labels": list(plan.labels),
    }


def _settle(run: Path, identity: dict[str, Any]) -> None:
    path = run / "study.json"
    identity = json.loads(json.dumps(identity))  # as it is read back
    try:
        before = json.loads(path.read_bytes())
    except FileNotFoundError:
        before = identity
    except (OSError, ValueError):
        before = {}
    changed = [key for key in identity if before.get(key) != identity[key]]
    if changed:
        raise SettingsError(
            f"{run} holds a comparison with another {', '.join(changed)}: use another --output, or the same settings"
        )
    write_file(path, json.dumps(identity, indent=1).encode())
