"""Fine-tuning as a comparison at equal budget: pre-trained, scratch and a plain U-Net, for every
number of labels and every seed.

RUN holds `study.json` (what is compared), `parts/ARM-LABELS-SEED.json` (one training each, with
every test volume's figures), with `--tune` also `parts/tune-ARM-LABELS-SEED.json`, `model/` (the
pre-trained arm with all labels), `results.json`, `report.html`. A stopped comparison goes on there.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavespark.downstream.arms import PLAIN, PRETRAINED, SCRATCH, peak_rate, starting_encoder
from wavespark.downstream.figures import Row, gain, intervals, make_row, over_seeds
from wavespark.downstream.fitting import Fit, Task, fit
from wavespark.downstream.heads import transferable
from wavespark.downstream.items import Labelled
from wavespark.downstream.pictures import save_case
from wavespark.downstream.saving import CONFIG, save_model
from wavespark.downstream.tuning import trainings_of_tuning, tune
from wavespark.errors import SettingsError
from wavespark.files import write_file, writing
from wavespark.models import Encoder
from wavespark.progress import Log, OnProgress, ShouldStop, ignore_log, ignore_progress, never_stop
from wavespark.randomness import stream

Part = dict[str, Any]
"""Record of one training: arm, labels, seed, losses, learning rate, and a row for every test
volume."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Arms, numbers of labelled volumes and seeds of a comparison."""

    labels: tuple[int, ...] = ()
    """Labelled volumes of each training; none: all there are, once."""
    seeds: int = 1
    """Trainings of each arm and number of labels."""
    control: bool = True
    """Train the same network from scratch."""
    plain: bool = False
    """Train a plain U-Net."""
    tune: bool = False
    """Choose the learning rate of every training by cross-validation among its own labelled
    volumes."""

    def __post_init__(self) -> None:
        if self.seeds < 1 or any(n < 1 for n in self.labels):
            raise SettingsError(f"labels per run {self.labels} and seeds {self.seeds} must be at least 1")

    def counts(self, available: int) -> tuple[int, ...]:
        """Numbers of labelled volumes, ascending, at most those there are."""
        return tuple(sorted({min(n, available) for n in self.labels} or {available}))

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order in which they are trained."""
        return (PRETRAINED, *((SCRATCH,) if self.control else ()), *((PLAIN,) if self.plain else ()))

    def trainings(self, available: int) -> int:
        """Number of trainings, those of the tuning among them."""
        single = len(self.arms) * self.seeds
        return sum(single * (1 + (trainings_of_tuning(n) if self.tune else 0)) for n in self.counts(available))


def labels_per_run(text: str, available: int) -> tuple[int, ...]:
    """Read a list of numbers and `all`.

    >>> labels_per_run("1,4,all", 9)
    (1, 4, 9)

    Raises:
        SettingsError: if a word is neither.
    """
    words = [w.strip() for w in text.split(",") if w.strip()]
    if not words or not all(w == "all" or (w.isdecimal() and int(w) > 0) for w in words):
        raise SettingsError(
            f"--labels-per-run {text!r} is not possible: write numbers and `all`, for example 1,2,4,8,all"
        )
    return tuple(available if w == "all" else int(w) for w in words)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Study:
    """The inputs of every training of a comparison."""

    task: Task
    encoder: Encoder
    train: Sequence[Labelled]
    test: Sequence[Labelled]
    plan: Plan
    run: Path
    on_progress: OnProgress
    should_stop: ShouldStop

    def part(self, arm: str, labels: int, seed: int, keep: bool) -> Part:
        """The record of one training: read if it is finished, else trained and written."""
        path = self.run / "parts" / f"{arm}-{labels}-{seed}.json"
        if not path.exists() or (keep and not (self.run / "model" / CONFIG).exists()):
            part = self._train_and_test(arm, labels, seed, self.run / "model" if keep else None)
            write_file(path, json.dumps(part, allow_nan=False).encode())
        record: Part = json.loads(path.read_bytes())
        return record

    def _train_and_test(self, arm: str, labels: int, seed: int, model: Path | None) -> Part:
        own, settings = self.task.settings.run.seed * 1000 + seed, self.task.settings
        order = stream(own, purpose="which are labelled").permutation(len(self.train))
        labelled = [self.train[k] for k in order[:labels]]
        tuning = self._tuning(arm, labels, seed, own, labelled) if self.plan.tune else None
        before = self._share_of_tuning(labelled)
        done = fit(
            self.task,
            starting_encoder(arm, self.encoder, own),
            labelled,
            seed=own,
            pretrained=arm == PRETRAINED,
            rate=tuning["selected"] if tuning else None,
            on_progress=self._between(before, 1.0),
            should_stop=self.should_stop,
        )
        rows: list[Row] = []
        for item in self.test:
            text = f"testing on volume {len(rows) + 1} of {len(self.test)}"
            self.on_progress(settings.run.steps, settings.run.steps, text)
            prediction = self.task.predict(done.model, item.volume)
            if model:
                save_case(self.run, len(rows), item, prediction)
            rows.append(make_row(self.task, prediction, item))
        if model:
            save_model(model, self.task, done.model, _provenance(settings, labelled, len(self.test)))
        return _record(arm, labels, seed, done, rows, tuning)

    def _tuning(self, arm: str, labels: int, seed: int, own: int, labelled: Sequence[Labelled]) -> dict[str, Any]:
        path = self.run / "parts" / f"tune-{arm}-{labels}-{seed}.json"
        if not path.exists():
            progress = self._between(0.0, self._share_of_tuning(labelled))
            tuning = tune(
                self.task, arm, self.encoder, labelled, own, on_progress=progress, should_stop=self.should_stop
            )
            write_file(path, json.dumps(tuning.to_json(), allow_nan=False).encode())
        record: dict[str, Any] = json.loads(path.read_bytes())
        return record

    def _share_of_tuning(self, labelled: Sequence[Labelled]) -> float:
        extra = trainings_of_tuning(len({item.volume.patient for item in labelled})) if self.plan.tune else 0
        return extra / (1 + extra)

    def _between(self, first: float, last: float) -> OnProgress:
        """Progress of a part of this training, as steps of the whole."""
        steps = self.task.settings.run.steps

        def report(done: float, total: float, text: str) -> None:
            self.on_progress(steps * (first + (last - first) * done / total), steps, text)

        return report


def _provenance(settings: Any, labelled: Sequence[Labelled], tested: int) -> dict[str, Any]:
    return {
        "steps": settings.run.steps,
        "volumes": len(labelled),
        "patients": len({i.volume.patient for i in labelled}),
        "modalities": sorted({i.volume.modality for i in labelled}),
        "test_volumes": tested,
        "start": "the encoder frozen" if settings.frozen else "from a pre-trained encoder",
    }


def _record(arm: str, labels: int, seed: int, done: Fit, rows: list[Row], tuning: dict[str, Any] | None) -> Part:
    return {
        "arm": arm,
        "labels": labels,
        "seed": seed,
        "loss": [round(x, 5) for x in done.losses],
        "seconds": round(done.seconds, 2),
        "learning_rate": done.learning_rate,
        **({"tuning": tuning} if tuning else {}),
        "rows": rows,
    }


def run_study(
    task: Task,
    encoder: Encoder,
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    plan: Plan,
    run: Path,
    *,
    on_progress: OnProgress = ignore_progress,
    log: Log = ignore_log,
    should_stop: ShouldStop = never_stop,
) -> dict[str, Any]:
    """Train and test every arm; write and return the results.

    Args:
        task: what is learned.
        encoder: pre-trained; is not changed.
        train: labelled volumes; each training takes the first ones of an order that its seed
            decides.
        test: volumes of other patients.
        plan: arms, numbers of labels, seeds.
        run: folder for everything.
        on_progress: called with (steps done, steps in all, text).
        log: called with a sentence about each arm: learning rate, and a decoder that was
            pre-trained with the encoder.
        should_stop: a name (of a signal) ends it; finished trainings are kept.

    Returns:
        Plain values: `table` (figures of every arm and number of labels with 95 % intervals),
            `gains` (pre-trained minus scratch), `plain_gains` (pre-trained minus plain),
            `trainings` (learning rate and seconds of each), `task`, `main`, `steps`, ...

    Raises:
        SettingsError: if the folder holds another comparison.
        TrainingStopped: if `should_stop` asked for it, or a loss is not finite.
    """
    with writing(run):
        (run / "parts").mkdir(parents=True, exist_ok=True)
    _settle(run, _identity(task, encoder, train, test, plan))
    for sentence in _remarks(task, encoder, plan):
        log(sentence)
    parts = dict(_all_parts(task, encoder, train, test, plan, run, on_progress, should_stop))
    results = summarise(task, parts, plan.counts(len(train)), plan, len(train), task.settings.run.seed)
    write_file(run / "results.json", json.dumps(results, indent=1, allow_nan=False).encode())
    return results


def _remarks(task: Task, encoder: Encoder, plan: Plan) -> Iterator[str]:
    if not plan.tune:
        networks = {arm: encoder if arm != PLAIN else starting_encoder(arm, encoder, 0) for arm in plan.arms}
        rates = ", ".join(f"{arm} {peak_rate(task.kind, task.settings, n):.1e}" for arm, n in networks.items())
        yield f"learning rates: {rates}; --tune chooses them by cross-validation"
    if encoder.pretrained_decoder and task.kind in ("segment", "detect"):
        if task.settings.decoder == "full":
            taken = transferable(encoder)
            yield (
                f"the decoder was pre-trained with the encoder: {taken} of its {len(encoder.pretrained_decoder)} weight tensors start the pre-trained "
                "arm, the last layer is new"
            )
        else:
            yield (
                f"the encoder brings a pre-trained decoder, which decoder={task.settings.decoder} leaves out: decoder=full would use it"
            )


def _all_parts(
    task: Task,
    encoder: Encoder,
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    plan: Plan,
    run: Path,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> Iterator[tuple[tuple[str, int, int], Part]]:
    counts, steps = plan.counts(len(train)), task.settings.run.steps
    trainings = [(arm, n, seed) for n in counts for seed in range(plan.seeds) for arm in plan.arms]
    for number, (arm, n, seed) in enumerate(trainings):
        name = f"{arm}, {n} labelled volume(s), seed {seed}"

        def say(done: float, of: float, text: str, base: int = number * steps, name: str = name) -> None:
            on_progress(base + done, len(trainings) * steps, f"{name}: {text}")

        study = _Study(
            task=task,
            encoder=encoder,
            train=train,
            test=test,
            plan=plan,
            run=run,
            on_progress=say,
            should_stop=should_stop,
        )
        yield (arm, n, seed), study.part(arm, n, seed, keep=(arm, n, seed) == (PRETRAINED, counts[-1], 0))
        on_progress((number + 1) * steps, len(trainings) * steps, name)


def summarise(
    task: Task,
    parts: Mapping[tuple[str, int, int], Part],
    counts: Sequence[int],
    plan: Plan,
    available: int,
    seed: int,
) -> dict[str, Any]:
    """Figures of every arm and number of labels, and paired differences, with 95 % intervals over
    the test patients."""
    table: list[dict[str, Any]] = []
    gains: dict[str, list[dict[str, Any]]] = {arm: [] for arm in plan.arms if arm != PRETRAINED}
    for n in counts:
        found = {arm: over_seeds(task, [parts[arm, n, s]["rows"] for s in range(plan.seeds)]) for arm in plan.arms}
        patients = [row["patient"] for row in parts[PRETRAINED, n, 0]["rows"]]
        for arm, of_arm in found.items():
            each = intervals(of_arm, patients, seed)
            table.append({"arm": arm, "labels": n, "figures": {name: i.to_json() for name, i in each.items()}})
        ours = found[PRETRAINED]
        for arm, rows in gains.items():
            both = [name for name in ours if name in found[arm]]
            each = {name: gain(ours[name], found[arm][name], patients, seed) for name in both}
            rows.append({"labels": n, "figures": {name: i.to_json() for name, i in each.items()}})
    first = parts[PRETRAINED, counts[0], 0]["rows"]
    return {
        "task": task.describe(),
        "main": task.main,
        "lower_is_better": task.main in LOWER_IS_BETTER,
        "figure_names": figure_names(task),
        "steps": task.settings.run.steps,
        "frozen": task.settings.frozen,
        "decoder": task.settings.decoder,
        "seeds": plan.seeds,
        "labelled_volumes": available,
        "test_volumes": len(first),
        "test_patients": len({row["patient"] for row in first}),
        "table": table,
        "gains": gains.get(SCRATCH, []),
        "plain_gains": gains.get(PLAIN, []),
        "trainings": [_summary_of(part) for part in parts.values()],
    }


def _summary_of(part: Part) -> dict[str, Any]:
    keys = ("arm", "labels", "seed", "seconds", "learning_rate", "tuning")
    return {key: part[key] for key in keys if key in part}


LOWER_IS_BETTER = frozenset({"mae"})
"""Main figures of which less is better."""


def figure_names(task: Task) -> dict[str, str]:
    """Names for people: the figures of named classes.

    >>> from wavespark.config.downstream import FinetuneSettings
    >>> from wavespark.downstream.segment import Segment
    >>> figure_names(Segment(classes=3, names=("CSF", "GM"), settings=FinetuneSettings()))
    {'dice_1': 'Dice CSF', 'dice_2': 'Dice GM'}
    """
    described = task.describe()
    if described["kind"] != "segment":
        return {}
    return {f"dice_{k}": f"Dice {name}" for k, name in enumerate(described.get("names", ()), 1)}


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
        "tune": plan.tune,
        "learning_rates": [
            peak_rate(task.kind, task.settings, network) for network in (encoder, starting_encoder(PLAIN, encoder, 0))
        ],
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
            f"{run} holds a comparison that began with other {', '.join(changed)}: use another --output, or the same settings"
        )
    write_file(path, json.dumps(identity, indent=1).encode())
