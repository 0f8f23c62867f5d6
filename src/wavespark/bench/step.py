"""One training step of the encoder on visible cells, against the same step on everything.

The claim: hiding a share of the cells saves that share of the computation. Measured are forward and backward pass of
(1) the encoder with hidden cells, (2) the same encoder with every cell visible, (3) a plain dense copy of it with the
same weights. The forms take turns in one process and the figures are medians of the ratios within a round.
"""

import platform
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wavespark import __version__
from wavespark.bench.cost import Cost, median_ratio
from wavespark.bench.dense import DenseWaveFormer
from wavespark.errors import SettingsError
from wavespark.masking import BlockMasking
from wavespark.models import create_model
from wavespark.shapes import as_triple, ceil_div

TARGET = 1.15
"""A step may cost this much more than its visible share of the faster form with everything visible."""
DENSE_FORMS = ("everything visible", "plain dense copy")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBench:
    """What is measured."""

    model: str = "waveformer_small"
    size: int = 96
    """Voxels along each edge of the crop, a multiple of the encoder's cell."""
    batch: int = 1
    hidden: tuple[float, ...] = (0.6, 0.75)
    """Shares of cells to hide."""
    rounds: int = 7
    """Rounds that count; one more warms up."""
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for name in ("size", "batch", "rounds", "threads"):
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name} {getattr(self, name)}: at least 1")
        if not self.hidden:
            raise SettingsError("give at least one share of cells to hide")

    @property
    def command(self) -> str:
        """What to type to measure this again."""
        words = ["wavespark", "bench", "step"]
        for name in ("model", "size", "batch", "rounds", "threads", "seed"):
            words += [f"--{name}", str(getattr(self, name))]
        for share in self.hidden:
            words += ["--hidden", str(share)]
        return shlex.join(words)


def measure_step(bench: StepBench, tell: Callable[[int, int], None] = lambda done, total: None) -> dict[str, Any]:
    """The measurement as plain values, ready for JSON.

    Args:
        bench: what to measure.
        tell: called with (rounds done, rounds in all).

    Raises:
        SettingsError: if the crop is not made of whole cells of the model.
        MaskError: if a share hides everything or nothing.
    """
    torch.set_num_threads(bench.threads)
    torch.manual_seed(bench.seed)
    encoder = create_model(bench.model, in_channels=1).train()
    if bench.size % encoder.cell[0]:
        raise SettingsError(f"--size {bench.size} is not a multiple of the {encoder.cell[0]} voxels of a cell")
    dense = DenseWaveFormer(encoder)
    crop = torch.randn(bench.batch, 1, bench.size, bench.size, bench.size)
    grid = ceil_div(crop.shape[2:], encoder.cell)
    maskings = [BlockMasking(grid=as_triple(grid), ratio=ratio) for ratio in bench.hidden]
    forms = [*DENSE_FORMS, *(f"{100 * ratio:g} % hidden" for ratio in bench.hidden)]
    everything = torch.ones(bench.batch, *grid, dtype=torch.bool)

    def step(form: str, number: int) -> None:
        if form == "plain dense copy":
            levels = dense(crop)
        elif form == "everything visible":
            levels = [level.features for level in encoder(crop, everything)]
        else:
            draws = [(bench.seed, number, str(b)) for b in range(bench.batch)]
            visible = maskings[forms.index(form) - len(DENSE_FORMS)].sample(draws=draws).visible
            levels = [level.features for level in encoder(crop, visible)]
        torch.stack([level.square().mean() for level in levels]).sum().backward()

    costs: dict[str, list[Cost]] = {form: [] for form in forms}
    for number in range(bench.rounds + 1):
        tell(number, bench.rounds)
        for form in forms[number % len(forms) :] + forms[: number % len(forms)]:  # nobody is always the first
            _forget_gradients(encoder)
            cost = Cost.of(lambda form=form, number=number: step(form, number))  # type: ignore[misc]
            if number:
                costs[form].append(cost)
    shares = [1 - masking.num_hidden / masking.num_cells for masking in maskings]
    results = [_compare(costs, form, share) for form, share in zip(forms[len(DENSE_FORMS) :], shares, strict=True)]
    return {
        "bench": "step",
        "what": f"forward and backward pass of {bench.model}, crop {bench.size}^3, batch {bench.batch}, fp32",
        "command": bench.command,
        "target": TARGET,
        "met": all(result["met"] for result in results),
        "results": results,
        "forms": {form: _as_json(Cost.median(kept)) for form, kept in costs.items()},
        "dense_copy_differs_by": _difference(encoder, dense, crop),
        "rounds": bench.rounds,
        "environment": describe_environment(),
    }


def _compare(costs: dict[str, list[Cost]], form: str, share: float) -> dict[str, Any]:
    """The form against the faster of those that compute everything, which is the one it beats by less."""
    ratios = {
        kind: {dense: median_ratio(costs[form], costs[dense], kind) for dense in DENSE_FORMS}
        for kind in ("user", "wall")
    }
    user, wall = (max(ratios[kind].values()) for kind in ("user", "wall"))
    return {
        "form": form,
        "visible_share": share,
        "faster_dense_form": max(ratios["user"], key=lambda dense: ratios["user"][dense]),
        "user_ratio": user,
        "wall_ratio": wall,
        "user_ratio_over_share": user / share,
        "wall_ratio_over_share": wall / share,
        "met": user / share <= TARGET,
        "ratios": ratios,
    }


def _as_json(cost: Cost) -> dict[str, float]:
    return {"user_seconds": cost.user, "wall_seconds": cost.wall, "minor_faults": cost.faults}


def _forget_gradients(encoder: nn.Module) -> None:
    for p in encoder.parameters():
        p.grad = None


@torch.no_grad()
def _difference(encoder: nn.Module, dense: nn.Module, crop: Tensor) -> float:
    """Largest difference of any feature: the dense copy computes the same."""
    pairs = zip(encoder(crop), dense(crop), strict=True)
    return max((level - copy.permute(0, 4, 1, 2, 3)).abs().max().item() for level, copy in pairs)


def describe_environment() -> dict[str, Any]:
    """What the figures depend on: versions, processor, threads."""
    return {
        "wavespark": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
