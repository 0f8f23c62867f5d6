"""One training of one network on labelled volumes: head first, then all with layer-wise learning rates; the same windows for every arm of a comparison.

Draw k of a training is a function of (seed, k), as in pre-training: an arm and its control see the same windows in the same order.
"""

import math
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wavespark.config.downstream import FinetuneSettings
from wavespark.downstream.heads import encoder_of
from wavespark.downstream.items import Labelled, place_window, widened, window
from wavespark.downstream.memory import Readable
from wavespark.engine.machine.device import cores
from wavespark.errors import ExitCode, ModelError, SettingsError, TrainingStopped
from wavespark.models import Encoder
from wavespark.progress import OnProgress, ShouldStop, ignore_progress, never_stop
from wavespark.randomness import sample_stream, stream
from wavespark.sampling.scene import Scene

_STAGE = re.compile(r"(?:^|\.)(?:stages|merges|norms)\.(\d+)")
_AHEAD = 4


class Task(Protocol):
    """What `Segment`, `Classify` and `Detect` have in common."""

    @property
    def kind(self) -> str: ...
    @property
    def main(self) -> str: ...
    @property
    def settings(self) -> FinetuneSettings: ...
    def describe(self) -> dict[str, Any]: ...
    def build(self, encoder: Encoder) -> nn.Module: ...
    def loss(self, model: nn.Module, scenes: Sequence[Scene], items: Sequence[Labelled], modality: str) -> Tensor: ...
    def predict(self, model: nn.Module, volume: Readable) -> Any: ...
    def scores(self, found: Any, item: Labelled) -> dict[str, float]: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fit:
    """A trained network and how its training went."""

    model: nn.Module
    losses: list[float]
    seconds: float


def build_model(task: Task, encoder: Encoder, seed: int) -> nn.Module:
    """The task's network on the encoder; the head's weights depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return task.build(encoder)


def fit(
    task: Task,
    encoder: Encoder,
    items: Sequence[Labelled],
    *,
    seed: int,
    pretrained: bool,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Fit:
    """Trains for `run.steps` steps.

    Args:
        task: what is learned; its settings decide everything.
        encoder: is trained in place (unless frozen).
        items: labelled volumes.
        seed: of the head and of the windows.
        pretrained: the encoder waits for the head and moves more slowly towards its stem; one from scratch gets neither.
        on_progress: called with (done, total, message).
        should_stop: a name (of a signal) ends it.

    Raises:
        TrainingStopped: if `should_stop` asked for it (75), or the loss is not finite (4).
        SettingsError: if there is nothing to train on, or no stem for a modality.
    """
    started = time.monotonic()
    settings = task.settings
    device = choose_device(settings.run.device)
    torch.set_num_threads(settings.run.threads or cores())
    model = build_model(task, encoder, seed).to(device)
    optimizer = make_groups(model, settings, pretrained)
    total = settings.run.steps
    alone = int(total * settings.optimizer.head_steps) if pretrained and not settings.frozen else 0
    losses: list[float] = []
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    for step, (modality, batch, scenes) in enumerate(_batches(items, settings, seed, model), 1):
        model.train()
        still = settings.frozen or step <= alone
        encoder.requires_grad_(not still)
        if still:
            encoder.eval()  # nothing of it may move, not even running statistics
        rate = _rate(step, total, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = task.loss(model, scenes, batch, modality)
        if not math.isfinite(value := float(loss.detach())):
            raise TrainingStopped(
                f"the loss is not finite in step {step} of fine-tuning: try a smaller optimizer.learning_rate",
                ExitCode.DIVERGED,
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], settings.optimizer.clip)
        optimizer.step()
        losses.append(value)
        on_progress(step, total, f"step {step} of {total}, loss {sum(losses[-20:]) / len(losses[-20:]):.3f}")
        if asked := should_stop():
            raise TrainingStopped(
                f"stopped by {asked}: run the same command again, trainings that are done are kept",
                ExitCode.INTERRUPTED,
            )
    return Fit(model=model.eval(), losses=losses, seconds=time.monotonic() - started)


def make_groups(model: nn.Module, settings: FinetuneSettings, pretrained: bool) -> torch.optim.AdamW:
    """AdamW whose groups carry `share` of the learning rate; no decay for biases and norms.

    A pre-trained encoder's stage i of n (from 0) has the share `layer_decay ** (n - i)`, its stem that of a stage before the first.
    """
    encoder = encoder_of(model)
    mine = {id(p): name for name, p in encoder.named_parameters()}
    stages = len(encoder.channels)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for p in model.parameters():
        name = mine.get(id(p))
        share = 1.0 if name is None or not pretrained else settings.optimizer.layer_decay ** (stages - _stage(name))
        groups.setdefault((share, p.ndim > 1), []).append(p)
    return torch.optim.AdamW(
        [
            {"params": ps, "share": share, "weight_decay": settings.optimizer.weight_decay * decayed}
            for (share, decayed), ps in groups.items()
        ],
        lr=settings.optimizer.learning_rate,
        betas=(0.9, 0.98),
    )


def _stage(name: str) -> int:
    """Which stage a parameter belongs to; -1 for the stem. `merges.0` leads into stage 1 and is counted with the stage before."""
    found = _STAGE.search(name)
    return int(found[1]) if found else -1


def _rate(step: int, total: int, settings: FinetuneSettings) -> float:
    o = settings.optimizer
    warm = max(1, int(total * o.warmup))
    if step <= warm:
        return o.learning_rate * step / warm
    progress = (step - warm) / max(1, total - warm)
    return o.learning_rate * (o.final_fraction + (1 - o.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))


def choose_device(wanted: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`.

    Raises:
        SettingsError: if it is not there.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise SettingsError(
            "the device cuda was asked for, but torch sees no CUDA device: `wavespark doctor` says why; use cpu, or auto"
        )
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def _batches(
    items: Sequence[Labelled], settings: FinetuneSettings, seed: int, model: nn.Module
) -> Iterator[tuple[str, list[Labelled], list[Scene]]]:
    """Modality, items and windows of every step, made ahead by threads."""
    of_modality: dict[str, list[Labelled]] = {}
    for item in items:
        of_modality.setdefault(item.volume.modality, []).append(item)
    if not of_modality:
        raise SettingsError("there is no labelled volume to train on")
    stems = encoder_of(model).stem_channels
    for modality, group in of_modality.items():
        needed = stems.get(modality, stems.get("any"))
        if needed is None or needed != group[0].volume.channels:
            raise ModelError(
                f"the encoder takes {stems}, and the labelled {modality} volumes have {group[0].volume.channels} channel(s): "
                "prepare them with the recipe of the encoder"
            )
    names = sorted(of_modality)
    changes, size, sides = settings.data.changes(), settings.data.crop, settings.data.sides

    def make(draw: int, item: Labelled) -> Scene:
        rng = sample_stream(seed, draw)
        start = place_window(item, size, rng, settings.data.labelled_share)
        scene = window(item, start, size)
        return changes.scene(
            scene,
            modality=item.volume.modality,
            spacing=item.volume.spacing,
            rng=rng,
            sides=sides,
            widen=widened(item, start, size),
        )

    def chosen(step: int) -> tuple[str, list[Labelled]]:
        rng = stream(seed, purpose="fine-tuning batch", step=step)
        shares = [len(of_modality[m]) / len(items) for m in names]
        modality = names[int(rng.choice(len(names), p=shares))]
        group = of_modality[modality]
        return modality, [group[int(k)] for k in rng.integers(len(group), size=settings.data.batch)]

    waiting: deque[tuple[str, list[Labelled], list[Future[Scene]]]] = deque()
    with ThreadPoolExecutor(settings.data.workers) as pool:
        try:
            for step in range(settings.run.steps + _AHEAD):
                if step < settings.run.steps:
                    modality, batch = chosen(step)
                    first = step * settings.data.batch
                    waiting.append(
                        (modality, batch, [pool.submit(make, first + i, item) for i, item in enumerate(batch)])
                    )
                if step >= _AHEAD or step >= settings.run.steps:
                    if not waiting:
                        break
                    modality, batch, made = waiting.popleft()
                    yield modality, batch, [f.result() for f in made]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
