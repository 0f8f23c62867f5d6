"""One training of one network on labelled volumes: head first, then everything with layer-wise
learning rates; the same windows for every arm.

Draw k of a training is a function of (seed, k), as in pre-training: all arms of a comparison see
the same windows in the same order.
"""

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wavespark.config.downstream import FinetuneSettings
from wavespark.downstream.arms import peak_rate
from wavespark.downstream.heads import encoder_of
from wavespark.downstream.items import Labelled, place_window, widened, window
from wavespark.downstream.memory import Readable
from wavespark.downstream.plain_unet import PlainEncoder
from wavespark.engine.learning.optimizer import layers_of, parameter_groups, set_learning_rate
from wavespark.engine.learning.schedule import learning_rate_at
from wavespark.engine.machine.device import choose_device
from wavespark.errors import ExitCode, ModelError, SettingsError, TrainingStopped
from wavespark.models import Encoder
from wavespark.progress import OnProgress, ShouldStop, ignore_progress, never_stop
from wavespark.randomness import sample_stream, stream
from wavespark.sampling.scene import Scene

Batch = tuple[str, list[Labelled], list[Scene]]
"""Modality, volumes and windows of one step."""

BETAS = (0.9, 0.98)
"""Decay of AdamW's averages of the gradient and of its square."""

_AHEAD = 4
"""Steps whose windows are prepared while the network computes."""

_RECENT = 20
"""Steps whose mean loss is shown."""


class Task(Protocol):
    """Common interface of `Segment`, `Classify`, `Regress` and `Detect`."""

    @property
    def kind(self) -> str: ...
    @property
    def main(self) -> str: ...
    @property
    def settings(self) -> FinetuneSettings: ...
    def describe(self) -> dict[str, Any]: ...
    def build(self, encoder: Encoder) -> nn.Module: ...
    def start(self, model: nn.Module, items: Sequence[Labelled]) -> None: ...
    def loss(self, model: nn.Module, scenes: Sequence[Scene], items: Sequence[Labelled], modality: str) -> Tensor: ...
    def predict(self, model: nn.Module, volume: Readable) -> Any: ...
    def scores(self, found: Any, item: Labelled) -> dict[str, float]: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fit:
    """A trained network and the course of its training."""

    model: nn.Module
    losses: list[float]
    """Loss of every step."""
    seconds: float
    """Wall-clock time."""
    learning_rate: float
    """Peak."""


def network_for(task: Task, encoder: Encoder, seed: int) -> nn.Module:
    """Put the head of a task on an encoder; the head's weights depend on the seed only."""
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
    rate: float | None = None,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> Fit:
    """Train for `run.steps` steps.

    Args:
        task: what is learned; its settings decide everything.
        encoder: is trained in place (unless frozen).
        items: labelled volumes.
        seed: random seed of the head and of the windows.
        pretrained: the encoder waits for the head and moves more slowly towards its stem; one from
            scratch gets neither.
        rate: peak learning rate; None = that of the settings.
        on_progress: called after every step.
        should_stop: asked after every step; a name (of a signal) ends the training.

    Returns:
        The network in evaluation mode, with its losses.

    Raises:
        TrainingStopped: if `should_stop` asked for it (75), or the loss is not finite (4).
        SettingsError: if there is nothing to train on, or no stem for a modality.
    """
    started = time.monotonic()
    settings = task.settings
    device = choose_device(settings.run.device)
    model = network_for(task, encoder, seed).to(device)
    task.start(model, items)
    frozen = settings.frozen and not isinstance(encoder, PlainEncoder)
    peak = peak_rate(task.kind, settings, encoder) if rate is None else rate
    optimizer = optimizer_for(model, settings, peak, pretrained)
    o, total = settings.optimizer, settings.run.steps
    alone = total if frozen else int(total * o.head_steps) if pretrained else 0
    losses: list[float] = []
    for step, batch in enumerate(batches(items, settings, seed, encoder_of(model).stem_channels), 1):
        _wait_for_head(model, encoder, waits=step <= alone)
        set_learning_rate(optimizer, learning_rate_at(step, total, peak, int(total * o.warmup), o.final_fraction))
        losses.append(_update(task, model, optimizer, batch, step, o.clip))
        mean = sum(losses[-_RECENT:]) / len(losses[-_RECENT:])
        on_progress(step, total, f"step {step} of {total}, loss {mean:.3f}")
        if reason := should_stop():
            raise TrainingStopped(
                f"stopped by {reason}: run the same command again, finished trainings are kept", ExitCode.INTERRUPTED
            )
    seconds = time.monotonic() - started
    return Fit(model=model.eval(), losses=losses, seconds=seconds, learning_rate=peak)


def _wait_for_head(model: nn.Module, encoder: Encoder, waits: bool) -> None:
    """Training mode for the whole network, or for its head alone."""
    model.train()
    encoder.requires_grad_(not waits)
    if waits:
        encoder.eval()  # not even running statistics may move


def _update(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, step: int, clip: float
) -> float:
    """One step of the optimiser; returns the loss."""
    modality, items, scenes = batch
    device = next(model.parameters()).device
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        loss = task.loss(model, scenes, items, modality)
    if not math.isfinite(value := float(loss.detach())):
        raise TrainingStopped(
            f"the loss is not finite in step {step} of fine-tuning: try a smaller optimizer.learning_rate",
            ExitCode.DIVERGED,
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], clip)
    optimizer.step()
    return value


def optimizer_for(model: nn.Module, settings: FinetuneSettings, rate: float, pretrained: bool) -> torch.optim.AdamW:
    """AdamW over the parameters of a network with a head.

    Args:
        model: from `network_for`.
        settings: weight decay, and `layer_decay` for the encoder.
        rate: peak learning rate, that of the head.
        pretrained: the learning rate falls from each block of the encoder to the one below; from
            scratch it does not.
    """
    layers = layers_of(model)
    top, decay = max(layers.values()), settings.optimizer.layer_decay if pretrained else 1.0
    groups = parameter_groups(model, settings.optimizer.weight_decay, lambda name: decay ** (top - layers[name]))
    return torch.optim.AdamW(groups, lr=rate, betas=BETAS)


def batches(
    items: Sequence[Labelled], settings: FinetuneSettings, seed: int, stems: Mapping[str, int]
) -> Iterator[Batch]:
    """Modality, volumes and windows of every step; threads prepare them ahead.

    Args:
        items: labelled volumes.
        settings: windows, batch, number of steps.
        seed: random seed of the windows.
        stems: channels that the network takes for each modality.

    Raises:
        SettingsError: if there is no volume.
        ModelError: if the network has no stem for a modality.
    """
    by_modality = _by_modality(items, stems)
    steps, size = settings.run.steps, settings.data.batch
    waiting: deque[tuple[str, list[Labelled], list[Future[Scene]]]] = deque()
    with ThreadPoolExecutor(settings.data.workers) as pool:
        try:
            for step in range(steps + _AHEAD):
                if step < steps:
                    modality, volumes = _draw_volumes(by_modality, size, seed, step)
                    scenes = [
                        pool.submit(draw_window, item, settings, seed, step * size + i)
                        for i, item in enumerate(volumes)
                    ]
                    waiting.append((modality, volumes, scenes))
                if waiting and step >= min(_AHEAD, steps):
                    modality, volumes, scenes = waiting.popleft()
                    yield modality, volumes, [scene.result() for scene in scenes]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _by_modality(items: Sequence[Labelled], stems: Mapping[str, int]) -> dict[str, list[Labelled]]:
    groups: dict[str, list[Labelled]] = {}
    for item in items:
        groups.setdefault(item.volume.modality, []).append(item)
    if not groups:
        raise SettingsError("there is no labelled volume to train on")
    for modality, group in groups.items():
        needed = stems.get(modality, stems.get("any"))
        if needed is None or needed != group[0].volume.channels:
            raise ModelError(
                f"the encoder takes {dict(stems)}, and the labelled {modality} volumes have {group[0].volume.channels} channel(s): "
                "prepare them with the recipe of the encoder"
            )
    return groups


def _draw_volumes(
    by_modality: Mapping[str, list[Labelled]], size: int, seed: int, step: int
) -> tuple[str, list[Labelled]]:
    rng = stream(seed, purpose="fine-tuning batch", step=step)
    names = sorted(by_modality)
    total = sum(map(len, by_modality.values()))
    modality = names[int(rng.choice(len(names), p=[len(by_modality[m]) / total for m in names]))]
    group = by_modality[modality]
    return modality, [group[int(k)] for k in rng.integers(len(group), size=size)]


def draw_window(item: Labelled, settings: FinetuneSettings, seed: int, draw: int) -> Scene:
    """Training window number `draw` of a training: place and augmentation depend on the seed and
    the number only."""
    data, rng = settings.data, sample_stream(seed, draw)
    start = place_window(item, data.crop, rng, data.labelled_share)
    return data.changes(settings.run.steps).scene(
        window(item, start, data.crop),
        modality=item.volume.modality,
        spacing=item.volume.spacing,
        rng=rng,
        sides=data.sides,
        widen=widened(item, start, data.crop),
    )
