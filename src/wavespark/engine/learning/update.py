"""One update of the weights: forward, backward, clip, step; and what it measured, read from the
device when somebody needs it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from wavespark.config import PretrainSettings
from wavespark.engine.learning.objective import Objective, Terms
from wavespark.engine.learning.optimizer import set_learning_rate
from wavespark.engine.machine.distributed import Ranks, gather_whole
from wavespark.engine.machine.faults import Faults
from wavespark.engine.machine.precision import Precision
from wavespark.sampling import Batch


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Measured:
    """Measures of an update. Reading them waits for the device."""

    step: int
    modality: str
    learning_rate: float
    weights: Mapping[str, float]
    """Weights of the loss terms."""
    values: Tensor
    """float64: each term; error, total, square, voxels of the score; all over all processes."""
    norm: Tensor
    """Gradient norm before clipping."""
    shares: Mapping[str, float]
    scaled: bool
    """The loss was scaled (fp16): a gradient that overflows is the scaler's business."""

    def line(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl, without times."""
        values, norm = self.values.tolist(), float(self.norm)
        terms = dict(zip(self.weights, values, strict=False))
        error, total, square, voxels = values[len(terms) :]
        loss = sum(self.weights[name] * value for name, value in terms.items())
        spread = square - total**2 / max(voxels, 1.0)
        return {
            "step": self.step,
            "loss": _number(loss),
            "normalised_loss": _number(error / spread if spread else math.nan),
            **{name: _number(value) for name, value in terms.items()},
            **self.shares,
            "learning_rate": self.learning_rate,
            "gradient_norm": _number(norm),
            "modality": self.modality,
            "skipped": not (math.isfinite(loss) and (math.isfinite(norm) or self.scaled)),
        }


class Updater:
    """Updates the weights of an objective.

    Args:
        settings: of the run.
        objective: what is minimised.
        network: the objective, or what makes its gradients the mean over all processes.
        optimizer: of the objective's parameters.
        precision: of the matrix products.
        ranks: the processes of the run.
        faults: for tests.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        objective: Objective,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        ranks: Ranks,
        faults: Faults,
    ) -> None:
        self.settings, self.objective, self.network, self.optimizer = settings, objective, network, optimizer
        self.precision, self.ranks, self.faults = precision, ranks, faults
        self.on_device = bool(optimizer.defaults.get("fused"))
        """A fused optimiser skips an update by itself: nobody waits to hear whether the gradient is
        finite."""

    def __call__(self, batch: Batch, step: int, rate: float) -> Measured:
        """One update with a batch (of several processes: this one's part of it), unless loss or
        gradient is not finite."""
        if step in self.faults.oom:
            raise MemoryError
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        parts = list(cut(batch, self.settings.run.accumulate))
        collected: list[tuple[Terms, Tensor, Tensor]] = []
        for number, part in enumerate(parts):
            with self._gradients_meet(number + 1 == len(parts)):
                with self.precision.autocast():
                    terms: Terms = self.network(part, step)
                loss, values = self._loss(terms, len(parts), step)
                self.precision.scaler.scale(loss).backward()
            collected.append((terms, loss.detach(), values))
        self.precision.scaler.unscale_(self.optimizer)
        trained = [p for p in self.objective.parameters() if p.grad is not None]
        norm = gather_whole(torch.nn.utils.clip_grad_norm_(trained, self.settings.optimizer.clip)).detach()
        values = self.ranks.sum(sum((v for _, _, v in collected[1:]), collected[0][2]))
        measured = Measured(
            step=step,
            modality=batch.modality,
            learning_rate=rate,
            weights={name: term.weight for name, term in terms.terms.items()},
            values=values,
            norm=norm,
            shares=_mean([t.masks.shares() for t, _, _ in collected]),
            scaled=self.precision.scaler.is_enabled(),
        )
        self._step(measured)
        return measured

    def _step(self, measured: Measured) -> None:
        scaler = self.precision.scaler
        if self.on_device and not scaler.is_enabled():
            finite = torch.isfinite(measured.norm) & torch.isfinite(measured.values).all()
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif self.on_device or not measured.line()["skipped"]:
            scaler.step(self.optimizer)
        else:
            scaler.update()
            return
        scaler.update()
        self.objective.after_update(measured.step)

    def _loss(self, terms: Terms, parts: int, step: int) -> tuple[Tensor, Tensor]:
        """The loss to differentiate, and what of it adds up over parts and processes."""
        named = list(terms.terms.values())
        counts = self.ranks.sum(torch.stack([t.count.detach().double() for t in named])).clamp(min=1)
        shares = [t.total / count.to(t.total.dtype) for t, count in zip(named, counts, strict=True)]
        loss = sum(
            (t.weight * share for t, share in zip(named[1:], shares[1:], strict=True)), named[0].weight * shares[0]
        )
        if step in self.faults.nan:
            shares = [s * math.nan for s in shares]
            loss = loss * math.nan
        score = [getattr(terms.score, name) for name in ("error", "total", "square", "voxels")]
        values = torch.stack([*(s.detach().double() / parts for s in shares), *(s.detach().double() for s in score)])
        # The mean over the processes that DDP takes must be the sum.
        return loss * (self.ranks.world / parts), values

    def _gradients_meet(self, last: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients once an update, with its last part."""
        shard = getattr(self.objective.model, "set_requires_gradient_sync", None)
        if shard is not None:
            shard(last)
        if last or not isinstance(self.network, nn.parallel.DistributedDataParallel):
            return nullcontext()
        wait: AbstractContextManager[None] = self.network.no_sync()
        return wait


def cut(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch in equal parts along its samples."""
    if parts == 1:
        yield batch
        return
    size = len(batch.draws) // parts
    for start in range(0, size * parts, size):
        chosen = slice(start, start + size)
        values: dict[str, Any] = {f.name: getattr(batch, f.name) for f in fields(batch)}
        per_sample: dict[str, Any] = {k: v[chosen] for k, v in values.items() if isinstance(v, Tensor | tuple)}
        yield replace(batch, **per_sample)


def _mean(lines: list[dict[str, float]]) -> dict[str, float]:
    return {key: sum(line[key] for line in lines) / len(lines) for key in lines[0]}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
