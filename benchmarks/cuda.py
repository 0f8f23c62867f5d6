"""Visible cells against dense networks on a CUDA device: time, time of the kernels alone, and peak memory of forward and backward pass, as ratios.

    python benchmarks/cuda.py --output benchmarks/results/cuda.json

The forms take turns within a round, timed by device events; figures are medians of the ratios within a round. A network of many small kernels is bound
by the host that launches them: the kernels alone say what a faster host, a compiler or a graph can reach.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from wavespark.bench.environment import describe_environment
from wavespark.bench.sparse_forms import as_voxels, visible_cells
from wavespark.bench.step import dense_copy
from wavespark.models import create_model
from wavespark.sparse import CellLayout, SubmanifoldConv3d, VisibleCells

HIDDEN = (0.6, 0.75)
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Work = Callable[[], object]


def measure(forms: dict[str, Work], rounds: int, inner: int = 3) -> dict[str, dict[str, float]]:
    """Milliseconds and MiB of each form, and how they compare with the fastest dense one."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    memory = {}
    for name, work in forms.items():
        work()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    for _ in range(rounds):
        for name, work in forms.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(inner):
                work()
            end.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(end) / inner)
    kernels = {name: kernel_time(work) for name, work in forms.items()}
    dense = [name for name in forms if "dense" in name]
    best = min(dense, key=lambda name: statistics.median(times[name]))
    least = min(kernels[name][0] for name in dense)
    return {
        name: {
            "milliseconds": round(statistics.median(kept), 3),
            "of_the_faster_dense": round(statistics.median(a / b for a, b in zip(kept, times[best], strict=True)), 3),
            "kernel_milliseconds": round(kernels[name][0], 3),
            "kernels_of_the_least_dense": round(kernels[name][0] / least, 3),
            "launches": kernels[name][1],
            "extra_MiB": round(memory[name], 1),
        }
        for name, kept in times.items()
    }


def kernel_time(work: Work) -> tuple[float, int]:
    """Milliseconds that the device computes and copies in one call, and how many kernels and copies that is."""
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as found:
        work()
        torch.cuda.synchronize()
    events = [e for e in found.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
    return sum(e.self_device_time_total for e in events) / 1000, sum(e.count for e in events)


def encoder_forms(name: str, size: int, batch: int, kind: torch.dtype) -> dict[str, Work]:
    """Forward and backward pass of an encoder: a dense copy, everything visible, and each share hidden under new masks each time."""
    encoder = create_model(name, in_channels=1).cuda().train()
    dense = dense_copy(encoder)
    if dense is None:
        raise SystemExit(f"{name} has no dense copy")
    dense = dense.cuda()
    crop = torch.randn(batch, 1, size, size, size, device="cuda")
    cell = encoder.cell[0]
    number = 0

    def backward(levels: list[torch.Tensor]) -> None:
        torch.stack([level.float().square().mean() for level in levels]).sum().backward()
        encoder.zero_grad(set_to_none=True)

    def on_cells(hidden: float) -> None:
        nonlocal number
        number += 1
        visible = (
            torch.cat([visible_cells(size, cell, hidden, number * batch + b) for b in range(batch)])
            if hidden
            else torch.ones(batch, *(size // cell,) * 3, dtype=torch.bool)
        )
        with torch.autocast("cuda", kind, enabled=kind != torch.float32):
            backward([level.features for level in encoder(crop, visible)])

    def on_everything() -> None:
        with torch.autocast("cuda", kind, enabled=kind != torch.float32):
            backward(dense(crop))

    forms: dict[str, Work] = {"dense copy": on_everything, "dense, everything visible": lambda: on_cells(0.0)}
    return forms | {f"{100 * h:g} % hidden": lambda h=h: on_cells(h) for h in HIDDEN}  # type: ignore[misc]


def convolution_forms(channels: int, size: int, batch: int, cell: int, kind: torch.dtype) -> dict[str, Work]:
    """Forward and backward pass of a 3^3 convolution on visible cells, index included, and of the dense one times the mask."""
    conv = SubmanifoldConv3d(channels, channels, bias=False).cuda()
    crop = torch.randn(batch, channels, size, size, size, device="cuda", requires_grad=True)
    last = crop.detach().to(memory_format=torch.channels_last_3d).requires_grad_()

    def dense(x: torch.Tensor, shown: torch.Tensor) -> None:
        with torch.autocast("cuda", kind, enabled=kind != torch.float32):
            y = torch.nn.functional.conv3d(x, conv.weight, padding=1) * shown
        torch.autograd.grad(y.float().square().mean(), [x, conv.weight])

    def cells(values: VisibleCells, visible: torch.Tensor) -> None:
        features = values.features
        with torch.autocast("cuda", kind, enabled=kind != torch.float32):
            layout = CellLayout.of(visible, size=values.layout.size, cell=values.layout.cell, device=features.device)
            y = conv(VisibleCells(features=features, layout=layout)).features
        torch.autograd.grad(y.float().square().mean(), [features, conv.weight])

    forms: dict[str, Work] = {}
    for hidden in HIDDEN:
        visible = torch.cat([visible_cells(size, cell, hidden, b) for b in range(batch)])
        values = VisibleCells.from_dense(crop.detach(), visible, cell=cell)
        values = values.with_features(values.features.detach().requires_grad_())
        shown = as_voxels(visible, cell)[:, None].cuda()
        if not forms:
            forms["dense x mask"] = lambda shown=shown: dense(crop, shown)  # type: ignore[misc]
            forms["dense x mask, channels last"] = lambda shown=shown: dense(last, shown)  # type: ignore[misc]
        forms[f"{100 * hidden:g} % hidden"] = lambda v=values, m=visible: cells(v, m)  # type: ignore[misc]
    return forms


def main() -> None:
    """Measures and writes the document."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--output", type=Path, required=True)
    words.add_argument("--size", type=int, default=128)
    words.add_argument("--batch", type=int, default=2)
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--models", nargs="+", default=["waveformer_small", "resenc_small", "resenc_l"])
    chosen = words.parse_args()
    torch.manual_seed(0)
    lines: list[dict[str, Any]] = []

    def note(**line: Any) -> None:
        lines.append(line)
        print(json.dumps(line), flush=True)
        document = {
            "bench": "cuda",
            "what": f"forward and backward pass on {torch.cuda.get_device_name()}, batch {chosen.batch}",
            "command": f"python benchmarks/cuda.py --output benchmarks/results/cuda.json --size {chosen.size} --batch {chosen.batch} --rounds {chosen.rounds}",
            "results": lines,
            "rounds": chosen.rounds,
            "environment": describe_environment(),
        }
        chosen.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    for kind, dtype in TYPES.items():
        for name in chosen.models:
            forms = encoder_forms(name, chosen.size, chosen.batch, dtype)
            note(what=name, precision=kind, size=chosen.size, forms=measure(forms, chosen.rounds))
        for channels in (32, 64):
            for cell in (16, 8):
                forms = convolution_forms(channels, 96, chosen.batch, cell, dtype)
                note(
                    what=f"3^3 convolution, {channels} channels, cells of {cell}",
                    precision=kind,
                    size=96,
                    forms=measure(forms, chosen.rounds),
                )
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
