"""Three proofs on this machine: nothing hidden leaks, masks count right, and a small model learns. About 20 seconds."""

import time
from collections.abc import Callable
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from wavespark.doctor.checks import Check
from wavespark.engine.step import forward
from wavespark.masking import BlockMasking, NestedMasking
from wavespark.models import DecoderSettings, SparK, create_model
from wavespark.sampling import Batch


def self_tests() -> list[Check]:
    """The proofs, each with its time."""
    return [
        _timed("hidden voxels never leak", _leak),
        _timed("mask counts are exact", _masks),
        _timed("a small model learns", _learning),
    ]


def _timed(name: str, test: Callable[[], tuple[str, str, bool]]) -> Check:
    started = time.perf_counter()
    try:
        expected, found, ok = test()
    except Exception as error:
        expected, found, ok = "runs", f"{type(error).__name__}", False
    seconds = round(time.perf_counter() - started, 2)
    remedy = "" if ok else "report it, with the output of `wavespark doctor --json`"
    return Check(name=name, expected=expected, found=found, ok=ok, seconds=seconds, remedy=remedy)


def _leak() -> tuple[str, str, bool]:
    """Law I1: hidden voxels replaced by noise, infinity and NaN change no visible feature by one bit."""
    generator = torch.Generator().manual_seed(0)
    encoder = create_model("waveformer_tiny", in_channels=1).eval()
    crop = torch.randn(2, 1, 32, 32, 32, generator=generator)
    masks = BlockMasking(grid=(4, 4, 4)).sample(batch=2, generator=generator)
    hidden = masks.hidden.repeat_interleave(8, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)[:, None]
    noise = torch.randn(crop.shape, generator=generator) * 10
    changed = 0
    with torch.no_grad():
        clean = encoder(crop, masks.visible)
        for poison in (noise, torch.tensor(float("nan")), torch.tensor(float("inf"))):
            levels = encoder(torch.where(hidden, poison, crop), masks.visible)
            changed += sum(int((a.features != b.features).sum()) for a, b in zip(clean, levels, strict=True))
    return "0 features changed", f"{changed} features changed", changed == 0


def _masks() -> tuple[str, str, bool]:
    """Law I9 on every grid up to 5 x 5 x 5."""
    rng = np.random.default_rng(0)
    sides = range(1, 6)
    grids = [(d, h, w) for d, h, w in product(sides, sides, sides) if d * h * w > 1]
    wrong = 0
    for grid in grids:
        cells = grid[0] * grid[1] * grid[2]
        masks = NestedMasking(grid=grid).sample(batch=2, generator=rng)
        hidden = min(max(int(0.6 * cells + 0.5), 1), cells - 1)
        counts = [(int(masks.hidden[i].sum()), int(masks.visible[i].sum())) for i in range(2)]
        wrong += counts != [(hidden, cells - hidden)] * 2
    return f"0 of {len(grids)} grids wrong", f"{wrong} of {len(grids)} grids wrong", wrong == 0


def _learning() -> tuple[str, str, bool]:
    """Smooth random volumes: the normalised loss must fall well below 1, which is what predicting the mean would score."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = DecoderSettings(widths=(64, 32), depths=(1, 1), heads=(4, 2))
        model = SparK(create_model("waveformer_tiny", in_channels=1), decoder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    masking = BlockMasking(grid=(4, 4, 4), ratio=0.4)
    foreground = torch.ones(4, 32, 32, 32, dtype=torch.bool)
    started, losses = time.perf_counter(), []
    for step in range(1, 121):
        coarse = torch.randn(4, 1, 5, 5, 5, generator=generator)
        voxels = F.interpolate(coarse, size=(32, 32, 32), mode="trilinear", align_corners=True)
        keys = tuple(f"{step}.{i}" for i in range(4))
        batch = Batch(voxels=voxels, foreground=foreground, modality="any", draws=(0, 1, 2, 3), mask_keys=keys)
        score = forward(model, batch, masking, 0, step, 1e-4).score
        optimizer.zero_grad()
        score.loss.backward()
        optimizer.step()
        losses.append(float(score.normalised_loss.detach()))
        if time.perf_counter() - started > 20:
            break
    first, last = float(np.mean(losses[:3])), float(np.mean(losses[-5:]))
    return "normalised loss < 0.9", f"{first:.2f} -> {last:.2f} in {len(losses)} steps", last < 0.9
