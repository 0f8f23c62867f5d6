"""One training step on visible cells, against the same step on everything: of the encoder alone,
and with a decoder.

The claim: hiding a share of the cells saves that share of the encoder. Measured are forward and
backward pass of (1) the encoder with hidden cells, (2) the same encoder with every cell visible,
(3) a plain dense copy of it with the same weights; and of the whole step, with every cell visible
and with hidden ones, predicting all hidden cells, for each decoder asked for. The forms take turns
in one process and the figures are medians of the ratios within a round.
"""

import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavespark.bench.cost import Cost, median_ratio
from wavespark.bench.dense import DenseWaveFormer
from wavespark.bench.dense_resenc import DenseResEnc
from wavespark.bench.environment import describe_environment
from wavespark.bench.whole_step import DECODERS, WholeStep
from wavespark.config import load_pretraining
from wavespark.engine import step_parts
from wavespark.errors import SettingsError
from wavespark.masking import BlockMasking
from wavespark.models import Encoder, ResEnc, WaveFormer, create_model
from wavespark.prepare import open_store, prepare
from wavespark.progress import OnProgress, ignore_progress
from wavespark.samples import synthetic_head, write_nifti
from wavespark.shapes import as_triple, ceil_div

TARGET, TARGET_RESENC = 1.15, 1.25
"""A step may cost this much more than its visible share of the faster form with everything
visible."""
DENSE_FORMS = ("everything visible", "plain dense copy")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBench:
    """Settings of a benchmark of training steps."""

    model: str = "waveformer_small"
    size: int = 96
    """Voxels along each edge of the crop, a multiple of the encoder's cell."""
    batch: int = 1
    hidden: tuple[float, ...] = (0.6, 0.75)
    """Shares of cells to hide."""
    decoders: tuple[str, ...] = ()
    """Decoders of the whole step: `light`, `unet`; none measures the encoder alone."""
    rounds: int = 7
    """Rounds that count; one more warms up."""
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        object.__setattr__(self, "decoders", tuple(self.decoders))
        for name in ("size", "batch", "rounds", "threads"):
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name} {getattr(self, name)}: at least 1")
        if not self.hidden:
            raise SettingsError("give at least one share of cells to hide")
        for decoder in self.decoders:
            if decoder not in DECODERS:
                raise SettingsError(f"--decoder {decoder}: there are {' and '.join(DECODERS)}")

    @property
    def command(self) -> str:
        """Command that repeats the measurement."""
        words = ["wavespark", "bench", "step"]
        for name in ("model", "size", "batch", "rounds", "threads", "seed"):
            words += [f"--{name}", str(getattr(self, name))]
        for share in self.hidden:
            words += ["--hidden", str(share)]
        for decoder in self.decoders:
            words += ["--decoder", decoder]
        return shlex.join(words)


def measure_step(bench: StepBench, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """The measurement as plain values, ready for JSON.

    Args:
        bench: what to measure.
        on_progress: called with (done, total, message).

    Raises:
        SettingsError: if the crop is not made of whole cells of the model.
        MaskError: if a share hides everything or nothing.
    """
    torch.set_num_threads(bench.threads)
    torch.manual_seed(bench.seed)
    encoder = create_model(bench.model, in_channels=1).train()
    if bench.size % encoder.cell[0]:
        raise SettingsError(f"--size {bench.size} is not a multiple of the {encoder.cell[0]} voxels of a cell")
    dense = dense_copy(encoder)
    crop = torch.randn(bench.batch, 1, bench.size, bench.size, bench.size)
    grid = as_triple(ceil_div(crop.shape[2:], encoder.cell))
    maskings = {f"{100 * ratio:g} % hidden": BlockMasking(grid=grid, ratio=ratio) for ratio in bench.hidden}
    everything = torch.ones(bench.batch, *grid, dtype=torch.bool)

    def visible(form: str, number: int) -> Tensor:
        draws = [(bench.seed, number, str(b)) for b in range(bench.batch)]
        return maskings[form].sample(draws=draws).visible if form in maskings else everything

    def copied(crop: Tensor) -> list[Tensor]:
        return [] if dense is None else dense(crop)

    def encode(form: str, number: int) -> None:
        plain = form == "plain dense copy"
        levels = copied(crop) if plain else [level.features for level in encoder(crop, visible(form, number))]
        torch.stack([level.square().mean() for level in levels]).sum().backward()

    wholes = [WholeStep.of(encoder, decoder, tuple(maskings)) for decoder in bench.decoders]
    dense_forms = DENSE_FORMS if dense is not None else DENSE_FORMS[:1]
    forms: dict[str, Callable[[int], None]] = {
        form: lambda number, form=form: encode(form, number)  # type: ignore[misc]
        for form in (*dense_forms, *maskings)
    }
    for whole in wholes:
        forms |= whole.forms(crop, visible)
    costs = _take_turns(forms, bench.rounds, nn.ModuleList([encoder, *(whole.model for whole in wholes)]), on_progress)
    shares = {form: 1 - masking.num_hidden / masking.num_cells for form, masking in maskings.items()}
    target = TARGET_RESENC if isinstance(encoder, ResEnc) else TARGET
    results = [_compare(costs, form, share, target) for form, share in shares.items()]
    steps = [line for whole in wholes for line in whole.compare(costs, shares, target)]
    return {
        "bench": "step",
        "what": f"forward and backward pass of {bench.model}, crop {bench.size}^3, batch {bench.batch}, fp32",
        "command": bench.command,
        "target": target,
        "met": all(line["met"] for line in [*results, *steps]),
        "results": results,
        "steps": steps,
        "parts": _parts(bench) if bench.decoders else {},
        "forms": {form: _as_json(Cost.median(kept)) for form, kept in costs.items()},
        "dense_copy_differs_by": None if dense is None else _difference(encoder, dense, crop),
        "rounds": bench.rounds,
        "environment": describe_environment(),
    }


def _parts(bench: StepBench) -> dict[str, float]:
    """Where the time of a whole step of a run goes, from a store of one synthetic head: its first
    decoder and share of hidden cells."""
    words = [
        f"model.name={bench.model}",
        f"decoder.kind={bench.decoders[0]}",
        f"data.crop={[bench.size] * 3}",
        f"data.batch={bench.batch}",
        f"mask.ratio={bench.hidden[0]}",
        "mask.block=1",
        f"run.threads={bench.threads}",
        f"run.seed={bench.seed}",
    ]
    edge = max(96, 2 * bench.size)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_nifti(synthetic_head(bench.seed, "T1", shape=(edge, edge, edge)), folder / "heads" / "sub-0_T1w.nii.gz")
        prepare(folder / "heads", folder / "store")
        return step_parts(load_pretraining("tiny-cpu", words), open_store(folder / "store"), bench.rounds)


def dense_copy(encoder: Encoder) -> nn.Module | None:
    """Return the plain dense network with the same weights, where one exists."""
    if isinstance(encoder, WaveFormer):
        return DenseWaveFormer(encoder)
    return DenseResEnc(encoder) if isinstance(encoder, ResEnc) else None


def _take_turns(
    forms: dict[str, Callable[[int], None]], rounds: int, model: nn.Module, on_progress: OnProgress
) -> dict[str, list[Cost]]:
    """The cost of each form in each round that counts."""
    costs: dict[str, list[Cost]] = {form: [] for form in forms}
    names = list(forms)
    for number in range(rounds + 1):
        on_progress(number, rounds, f"round {number} of {rounds}")
        for form in names[number % len(names) :] + names[: number % len(names)]:  # nobody is always the first
            for p in model.parameters():
                p.grad = None
            cost = Cost.of(lambda form=form, number=number: forms[form](number))  # type: ignore[misc]
            if number:
                costs[form].append(cost)
    return costs


def _compare(costs: dict[str, list[Cost]], form: str, share: float, target: float = TARGET) -> dict[str, Any]:
    """The form against the faster of those that compute everything, which is the one it beats by
    less."""
    dense_forms = [dense for dense in DENSE_FORMS if dense in costs]
    ratios = {
        kind: {dense: median_ratio(costs[form], costs[dense], kind) for dense in dense_forms}
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
        "met": user / share <= target,
        "ratios": ratios,
    }


def _as_json(cost: Cost) -> dict[str, float]:
    return {"user_seconds": cost.user, "wall_seconds": cost.wall, "minor_faults": cost.faults}


@torch.no_grad()
def _difference(encoder: nn.Module, dense: nn.Module, crop: Tensor) -> float:
    """Largest difference of any feature: the dense copy computes the same."""
    pairs = zip(encoder(crop), dense(crop), strict=True)
    return max((level - copy.permute(0, 4, 1, 2, 3)).abs().max().item() for level, copy in pairs)
