"""Sparse convolutions against dense ones: the claim is that what is hidden costs nothing.

All forms take turns in one process; figures are medians over rounds of the ratio within a round.
Peak memory is measured in a process for each form.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from wavespark.bench.cost import Cost, median_ratio
from wavespark.bench.environment import describe_environment
from wavespark.bench.sparse_forms import (
    BLOCKS,
    LAST,
    PLAIN,
    Scene,
    Work,
    cells_work,
    dense_work,
    scaling_work,
    visible_cells,
    voxels_work,
)
from wavespark.bench.sparse_memory import compare_memory
from wavespark.errors import SettingsError, WavesparkError
from wavespark.progress import OnProgress, ignore_progress
from wavespark.sparse import CellLayout, engines, set_engine
from wavespark.sparse.cells.forms.borders import borders

CELL_TARGETS = {16: 1.10, 8: 1.20}
"""Cell edge (tokens) -> highest accepted cost, relative to the visible share of the dense form."""
VOXEL_TARGETS = {0.6: 0.95, 0.75: 0.65}
"""Hidden share -> highest accepted cost of sparse voxels, relative to the dense form."""
INDEX_TARGET_MS = 2.0
LINEAR_TARGET = 1.25
"""How much more a site may cost among the most sites than among the fewest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseBench:
    """Settings of a benchmark of sparse operations."""

    size: int = 48
    """Voxels along each edge of the crop, a multiple of 16."""
    channels: tuple[int, ...] = (32, 64)
    hidden: tuple[float, ...] = (0.6, 0.75)
    """Shares of cells to hide."""
    rounds: int = 7
    """Rounds that count; one more warms up."""
    threads: int = 1
    seed: int = 0
    most_sites: int = 10**6
    """The largest of the sizes in which sparse voxels are timed, each half of the next."""

    def __post_init__(self) -> None:
        for name in ("channels", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("size", "rounds", "threads"):
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name} {getattr(self, name)}: at least 1")
        if self.size % 16 or self.size < 32:
            raise SettingsError(f"--size {self.size}: at least two cells of 16 voxels, a multiple of 16")
        if not self.hidden or not all(0 < share < 1 for share in self.hidden):
            raise SettingsError(f"--hidden {self.hidden}: shares strictly between 0 and 1")

    @property
    def command(self) -> str:
        """Command that repeats the measurement."""
        words = ["wavespark", "bench", "sparse"]
        for name in ("size", "rounds", "threads", "seed"):
            words += [f"--{name}", str(getattr(self, name))]
        for share in self.hidden:
            words += ["--hidden", str(share)]
        return shlex.join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """One row of the table."""

    operation: str
    form: str
    channels: int
    work: Work
    cell: int = 0
    share: float = 1.0
    limit: float | None = None
    """The largest ratio to the dense form that keeps the promise."""

    @property
    def is_dense(self) -> bool:
        return not self.cell


def measure_sparse(bench: SparseBench, on_progress: OnProgress = ignore_progress) -> dict[str, Any]:
    """The measurement as plain values, ready for JSON.

    Args:
        bench: what to measure.
        on_progress: called with (done, total, message).
    """
    torch.set_num_threads(bench.threads)
    torch.manual_seed(bench.seed)
    forms, skipped = _forms(bench)
    sites = [bench.most_sites // 2**k for k in (3, 2, 1, 0)]
    scaling = {count: scaling_work(count) for count in sites}
    costs: dict[int, list[Cost]] = {i: [] for i in range(len(forms))}
    site_costs: dict[int, list[Cost]] = {count: [] for count in sites}
    for number in range(bench.rounds + 1):
        on_progress(number, bench.rounds, f"round {number} of {bench.rounds}")
        turn = number % len(forms)
        for i in [*range(turn, len(forms)), *range(turn)]:  # nobody is always the first
            cost = Cost.of(forms[i].work)
            if number:
                costs[i].append(cost)
        for count, work in scaling.items():
            cost = Cost.of(work)
            if number:
                site_costs[count].append(cost)
    results = [_compare(forms, costs, i) for i, form in enumerate(forms) if not form.is_dense]
    memory = compare_memory(bench.size, max(bench.channels), bench.hidden[0], bench.seed, tuple(CELL_TARGETS))
    linear, index = _scaling(site_costs), [_index(bench, cell) for cell in CELL_TARGETS]
    verdicts = [entry["met"] for entry in (*results, *memory, linear, *index) if entry["met"] is not None]
    return {
        "bench": "sparse",
        "what": f"forward and backward pass of 3^3 convolutions, crop {bench.size}^3, batch 1, fp32",
        "command": bench.command,
        "met": all(verdicts),
        "results": results,
        "dense": [_row(form, Cost.median(costs[i])) for i, form in enumerate(forms) if form.is_dense],
        "dense_variants_of_the_block": BLOCKS,
        "memory": memory,
        "sites": linear,
        "index": index,
        "engines": ["torch", *(name for name in engines() if name != "torch" and name not in skipped)],
        "engines_skipped": skipped,
        "rounds": bench.rounds,
        "environment": describe_environment(),
    }


def _forms(bench: SparseBench) -> tuple[list[_Form], dict[str, str]]:
    """Every form of every number of channels; and the engines that cannot run here, with the
    reason."""
    usable, skipped = _engines()
    forms = []
    for channels in bench.channels:
        scene = Scene.of(channels, bench.size)
        some = visible_cells(bench.size, 16, bench.hidden[0], bench.seed)
        for operation, names in (("conv", (PLAIN, LAST)), ("block", tuple(BLOCKS))):
            for name in names:
                forms.append(
                    _Form(operation=operation, form=name, channels=channels, work=dense_work(scene, some, 16, name))
                )
        for cell, factor in CELL_TARGETS.items():
            for hidden in bench.hidden:
                visible = visible_cells(bench.size, cell, hidden, bench.seed)
                share = float(visible.float().mean())
                name = f"cells of {cell}, {100 * hidden:g} % hidden"
                for operation in ("conv", "block"):
                    work = cells_work(scene, visible, cell, block=operation == "block")
                    limit = factor * share
                    forms.append(
                        _Form(
                            operation=operation,
                            form=name,
                            channels=channels,
                            work=work,
                            cell=cell,
                            share=share,
                            limit=limit,
                        )
                    )
        for engine in usable:
            for hidden in bench.hidden:
                visible = visible_cells(bench.size, 8, hidden, bench.seed)
                share = float(visible.float().mean())
                name = f"voxels by {engine}, {100 * hidden:g} % hidden"
                bound = VOXEL_TARGETS.get(hidden) if engine == "torch" else None
                work = voxels_work(scene, visible, 8, engine)
                forms.append(
                    _Form(operation="conv", form=name, channels=channels, work=work, cell=8, share=share, limit=bound)
                )
    return forms, skipped


def _engines() -> tuple[list[str], dict[str, str]]:
    usable, skipped = [], {}
    for name in engines():
        try:
            with set_engine(name):
                usable.append(name)
        except WavesparkError as refusal:
            skipped[name] = str(refusal)
    return usable, skipped


def _compare(forms: list[_Form], costs: dict[int, list[Cost]], i: int) -> dict[str, Any]:
    """A sparse form against the dense forms of its operation: a convolution against dense x mask, a
    block against the best of all."""
    form = forms[i]
    dense = [
        k for k, f in enumerate(forms) if f.is_dense and (f.operation, f.channels) == (form.operation, form.channels)
    ]
    ratios = {kind: {forms[k].form: median_ratio(costs[i], costs[k], kind) for k in dense} for kind in ("user", "wall")}
    fastest = max(ratios["user"], key=lambda name: ratios["user"][name])
    against = PLAIN if form.operation == "conv" else fastest
    ratio = ratios["user"][against]
    return {
        **_row(form, Cost.median(costs[i])),
        "visible_share": form.share,
        "against": against,
        "user_ratio": ratio,
        "wall_ratio": ratios["wall"][against],
        "user_ratio_over_share": ratio / form.share,
        "fastest_dense_form": fastest,
        "user_ratio_to_fastest": ratios["user"][fastest],
        "limit": form.limit,
        "met": None if form.limit is None else ratio <= form.limit,
        "met_against_fastest": None if form.limit is None else ratios["user"][fastest] <= form.limit,
        "ratios": ratios,
    }


def _row(form: _Form, cost: Cost) -> dict[str, Any]:
    return {
        "operation": form.operation,
        "channels": form.channels,
        "form": form.form,
        "user_seconds": cost.user,
        "wall_seconds": cost.wall,
        "minor_faults": cost.faults,
    }


def _scaling(costs: dict[int, list[Cost]]) -> dict[str, Any]:
    """Seconds for each number of sites, and what a site costs among the most against among the
    fewest."""
    fewest, most = min(costs), max(costs)
    growth = median_ratio(costs[most], costs[fewest], "user") / (most / fewest)
    return {
        "user_seconds": {str(count): Cost.median(kept).user for count, kept in costs.items()},
        "cost_of_a_site_most_to_fewest": growth,
        "limit": LINEAR_TARGET,
        "met": growth <= LINEAR_TARGET,
    }


def _index(bench: SparseBench, cell: int) -> dict[str, Any]:
    """Milliseconds to find the neighbours of a grid of tokens, which is done once in every step."""
    visible = visible_cells(bench.size, cell, bench.hidden[0], bench.seed)
    size, block = (bench.size,) * 3, (cell,) * 3

    def milliseconds(find: Callable[[CellLayout], object]) -> float:
        work = [Cost.of(lambda: find(CellLayout.of(visible, size=size, cell=block))) for _ in range(21)]
        return 1e3 * Cost.median(work).user

    halo = milliseconds(lambda layout: layout.halo(block, 1, 1))
    touching = milliseconds(lambda layout: borders(layout, block))
    return {
        "form": f"cells of {cell}",
        "halo_milliseconds": halo,
        "borders_milliseconds": touching,
        "limit": INDEX_TARGET_MS,
        "met": max(halo, touching) < INDEX_TARGET_MS,
    }
