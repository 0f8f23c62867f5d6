"""A pre-training run: build, continue where it was, loop, save, export. Killed at any moment it goes on from its last checkpoint, to the bit on a CPU.

No global generator is drawn from, so there is none to save: every draw is a function of the seed, the step and the sample.
"""

import hashlib
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from wavespark.checkpoints import Checkpoint, newest_checkpoint, prune, write_checkpoint
from wavespark.config import PretrainSettings
from wavespark.engine import folder
from wavespark.engine.folder import Tell
from wavespark.engine.load import export_checkpoint
from wavespark.engine.optimizer import learning_rate, make_optimizer, optimizer_tensors, restore_optimizer
from wavespark.engine.step import forward
from wavespark.engine.telemetry import Telemetry, environment, read_lines, write_json
from wavespark.engine.validation import HeldOut, write_examples
from wavespark.errors import CheckpointError, SettingsError, StoreError, TrainingStopped
from wavespark.models import SparK
from wavespark.prepare import Store
from wavespark.sampling import Batch, CropDataset, Split, batches, split_store

NON_FINITE_IN_A_ROW = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a finished run says of itself; also RUN/summary.json."""

    model: str
    parameters: int
    steps: int
    seconds: float
    seconds_per_step: float
    first: dict[str, Any]
    """Held-out measures before training."""
    last: dict[str, Any]
    """Held-out measures at the end."""
    resumed_from: list[int] = field(default_factory=list)
    skipped_steps: int = 0
    """Steps whose loss or gradient was not finite: no update was made."""
    finished: bool = True


def pretrain(
    settings: PretrainSettings,
    store: Store,
    run: Path,
    *,
    tell: Tell = lambda done, total, text: None,
    say: Callable[[str], None] = lambda text: None,
    stop: Callable[[], str | None] = lambda: None,
) -> RunSummary:
    """Trains until `run.steps`, continuing by itself if the folder has a checkpoint.

    Args:
        settings: everything that decides the run.
        store: prepared volumes.
        run: the run's folder; made if it is not there.
        tell: is told how far the run is.
        say: is told what a person should know, e.g. `resumed from step 50`.
        stop: asked after every step; a name (of a signal) ends the run after saving.

    Raises:
        SettingsError: if the folder was begun with other settings.
        StoreError: if there is nothing to train on, or the disk is full.
        CheckpointError: if all checkpoints are damaged, they belong to another store, or another process trains in this folder.
        TrainingStopped: if `stop` asked for it (exit code 75), or losses stay non-finite (4).
    """
    folder.make(run)
    with folder.hold(run):
        folder.settle(run, settings)
        loop = _Loop(settings, store, run, say)
        return loop.run_to_end(tell, stop)


def stems_of(store: Store) -> dict[str, int]:
    """Channels of each modality in the store.

    Raises:
        StoreError: if it is empty or a modality comes with different numbers of channels.
    """
    kinds = Counter((v.modality, v.channels) for v in store)
    if not kinds:
        raise StoreError(f"{store.path} holds no volume: look at its refusals with `wavespark inspect {store.path}`")
    stems = dict(sorted(kinds))
    if len(stems) != len(kinds):
        raise StoreError(
            f"{store.path} holds volumes of one modality with different numbers of channels: {sorted(kinds)}"
        )
    return stems


def contents_of(store: Store) -> str:
    """A hash of what the volumes of the store are, whatever their ids."""
    return hashlib.sha256("".join(sorted(v.content for v in store)).encode()).hexdigest()


def build_model(settings: PretrainSettings, stems: dict[str, int]) -> SparK:
    """A fresh model; its weights depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.run.seed)
        return SparK(settings.encoder(stems), settings.decoder.settings())


def choose_device(settings: PretrainSettings) -> torch.device:
    """The device that the settings ask for.

    Raises:
        SettingsError: if it is not there.
    """
    wanted = settings.run.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "run.device=cuda, but torch sees no CUDA device: `wavespark doctor` says why; use run.device=cpu to train on the CPU"
        )
    return torch.device("cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu")


def choose_precision(settings: PretrainSettings, device: torch.device) -> torch.dtype:
    """The type of the matrix products."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if settings.run.precision != "auto":
        return named[settings.run.precision]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


class _Loop:
    """The state of a run between two steps."""

    def __init__(self, settings: PretrainSettings, store: Store, run: Path, say: Callable[[str], None]) -> None:
        self.settings, self.store, self.run, self.say = settings, store, run, say
        torch.set_num_threads(settings.run.threads or _cores())
        self.device = choose_device(settings)
        self.precision = choose_precision(settings, self.device)
        self.model = build_model(settings, stems_of(store)).to(self.device)
        self.masking = settings.masking(self.model.encoder.cell)
        self.split = split_store(store, settings.data.crop, settings.data.held_out_fraction, settings.run.seed)
        self.held_out = HeldOut.of(store, self.split, settings, self.masking)
        self.optimizer = make_optimizer(self.model, settings.optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.step, self.saved = 0, -1
        self.seconds = 0.0
        self.resumed_from: list[int] = []
        self.skipped = self.skipped_in_a_row = 0
        self.measure: dict[str, Any] = {}
        self._restore()

    def run_to_end(self, tell: Tell, stop: Callable[[], str | None]) -> RunSummary:
        settings, total = self.settings, self.settings.run.steps
        write_json(self.run / "environment.json", environment(self.device))
        write_json(self.run / "data.json", describe_data(self.store, self.split))
        dataset = CropDataset(
            self.store,
            self.split.training,
            crop=settings.data.crop,
            batch=settings.data.batch,
            seed=settings.run.seed,
            augmentation=settings.data.augmentation(),
            weights=settings.data.modality_weights,
        )
        loader = batches(
            dataset, start=self.step, stop=total, workers=settings.data.workers, pin=self.device.type == "cuda"
        )
        # A run that starts keeps no line of an earlier try, not even that of step 0.
        with closing(Telemetry(self.run, self.step or -1, settings.run.tensorboard)) as telemetry, closing(loader):
            if self.step == 0:
                self._validate(telemetry)
            self._all_steps(loader, telemetry, tell, stop)
        return self._finish()

    def _all_steps(
        self, loader: Iterator[Batch], telemetry: Telemetry, tell: Tell, stop: Callable[[], str | None]
    ) -> None:
        settings, total = self.settings, self.settings.run.steps
        self.model.train()
        tell(self.step, total, "")
        self._stop_if(stop() if self.step < total else None, telemetry)
        recent = math.nan
        while self.step < total:
            try:
                batch = next(loader)
            except TrainingStopped:  # a signal to the whole group can take the loader's processes away
                self._stop_if(stop(), telemetry)
                raise
            line = self._train(batch)
            telemetry.metrics(line)
            loss = line["normalised_loss"]
            if loss is not None:
                recent = loss if math.isnan(recent) else 0.95 * recent + 0.05 * loss
            tell(
                self.step,
                total,
                f"step {self.step} of {total}, normalised loss {recent:.3f}, {self.seconds / self.step:.2f} s a step",
            )
            last = self.step == total
            if last or self.step % settings.run.validate_every == 0:
                self._validate(telemetry)
            if last or self.step % settings.run.checkpoint_every == 0:
                self._save(telemetry)
            self._stop_if(None if last else stop(), telemetry)

    def _stop_if(self, asked: str | None, telemetry: Telemetry) -> None:
        if asked:
            if self.saved != self.step:
                self._save(telemetry)
            raise TrainingStopped(
                f"stopped by {asked} after step {self.step}, which is saved: run the same command again to go on", 75
            )

    def _train(self, batch: Batch) -> dict[str, Any]:
        started = time.perf_counter()
        settings = self.settings
        self.step += 1
        rate = learning_rate(self.step, settings.run.steps, settings.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            result = forward(
                self.model, batch, self.masking, settings.run.seed, self.step, settings.objective.variance_floor
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(result.score.loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.optimizer.clip))
        loss = float(result.score.loss.detach())
        finite = math.isfinite(loss) and (math.isfinite(norm) or self.scaler.is_enabled())
        if finite:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self._count_skips(finite, batch)
        seconds = time.perf_counter() - started
        self.seconds += seconds
        return {
            "step": self.step,
            "loss": _number(loss),
            "normalised_loss": _number(float(result.score.normalised_loss.detach())),
            "reconstruction": _number(loss),
            **result.masks.shares(),
            "learning_rate": rate,
            "gradient_norm": _number(norm),
            "seconds": round(seconds, 4),
            "modality": batch.modality,
            "skipped": not finite,
        }

    def _count_skips(self, finite: bool, batch: Batch) -> None:
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        self.skipped += not finite
        if not finite:
            self.say(f"step {self.step}: loss or gradient is not finite, no update was made")
        if self.skipped_in_a_row >= NON_FINITE_IN_A_ROW:
            raise TrainingStopped(
                f"loss or gradient was not finite in {NON_FINITE_IN_A_ROW} steps in a row, up to step {self.step} (modality {batch.modality}). "
                f"The last good checkpoint is kept in {self.run / folder.CHECKPOINTS}; try a smaller optimizer.learning_rate",
                4,
            )

    def _validate(self, telemetry: Telemetry) -> None:
        line, results = self.held_out.measure(self.model, self.step)
        self.measure = line
        write_examples(self.run / folder.EXAMPLES, self.held_out, results, self.model.encoder.cell, self.step)
        telemetry.validation(line)

    def _save(self, telemetry: Telemetry) -> None:
        telemetry.sync()
        state = {
            "settings": self.settings.model_dump(),
            "stems": self.model.encoder.stem_channels,
            "seconds": self.seconds,
            "resumed_from": self.resumed_from,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "scaler": self.scaler.state_dict(),
            "store": self.store.recipe.fingerprint,
            "preparation": self.store.recipe.settings,
            "volumes": len(self.store),
            "contents": contents_of(self.store),
            "held_out": self.measure.get("normalised_loss"),
        }
        checkpoint = Checkpoint(
            step=self.step,
            model=self.model.state_dict(),
            optimizer=optimizer_tensors(self.model, self.optimizer),
            state=state,
        )
        write_checkpoint(self.run / folder.CHECKPOINTS, checkpoint)
        self.saved = self.step
        prune(self.run / folder.CHECKPOINTS, self.settings.run.keep, self.step)

    def _restore(self) -> None:
        found = newest_checkpoint(self.run / folder.CHECKPOINTS, damaged=lambda text: self.say(f"passed over: {text}"))
        if found is None:
            return
        try:
            if (
                found.state["store"] != self.store.recipe.fingerprint
                or found.state["stems"] != self.model.encoder.stem_channels
            ):
                raise CheckpointError(
                    f"{self.run} was trained on a store of another recipe or other modalities: use that store, or another --output"
                )
            if found.state["contents"] != contents_of(self.store):
                raise CheckpointError(
                    f"{self.store.path} no longer holds the {found.state['volumes']} volumes that {self.run} was trained on, so its held-out part "
                    "would be another one: use that store, another --output, or --fresh"
                )
            self.model.load_state_dict(dict(found.model))
            restore_optimizer(self.model, self.optimizer, found.optimizer)
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(dict(found.state["scaler"]))
            self.step = self.saved = found.step
            self.seconds = float(found.state["seconds"])
            self.resumed_from = [*found.state["resumed_from"], found.step]
            self.measure = {"normalised_loss": found.state["held_out"]}
            self.skipped, self.skipped_in_a_row = int(found.state["skipped"]), int(found.state["skipped_in_a_row"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"the checkpoint of step {found.step} in {self.run} belongs to another model"
            ) from None
        self.say(f"resumed from step {found.step}")

    def _finish(self) -> RunSummary:
        measures = read_lines(self.run / folder.VALIDATION)
        summary = RunSummary(
            model=self.settings.model.name,
            parameters=sum(p.numel() for p in self.model.parameters()),
            steps=self.step,
            seconds=round(self.seconds, 2),
            seconds_per_step=round(self.seconds / max(1, self.step), 4),
            first=measures[0] if measures else {},
            last=measures[-1] if measures else {},
            resumed_from=self.resumed_from,
            skipped_steps=self.skipped,
        )
        write_json(self.run / "summary.json", asdict(summary))
        export_checkpoint(self.run, self.run / "exports" / "encoder", "wavespark")
        return summary


def describe_data(store: Store, split: Split) -> dict[str, Any]:
    """RUN/data.json: what is trained on, what is held out, what was refused."""
    volumes = list(store)
    return {
        "volumes": len(volumes) + len(store.refused),
        "used": len(volumes),
        "by_modality": dict(sorted(Counter(v.modality for v in volumes).items())),
        "by_contrast": dict(sorted(Counter(v.contrast or "unknown" for v in volumes).items())),
        "training": [r.volume for r in split.training],
        "held_out": {
            "kind": split.kind,
            "description": split.description,
            "volumes": [r.volume for r in split.held_out],
        },
        "refused": [asdict(r) for r in store.refused],
        "store_fingerprint": store.recipe.fingerprint,
        "recipe": json.loads(json.dumps(store.recipe.settings)),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
