"""A run as the engine writes it, made without training."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import ndimage

Case = dict[str, Any]


def head(size: int = 32, seed: int = 0) -> np.ndarray:
    """A bright float32 ellipsoid [1, size, size, size], with a spot on the right, in front and at the top."""
    generator = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size),) * 3, indexing="ij")
    r = np.sqrt((x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.85) ** 2)
    noise = ndimage.gaussian_filter(generator.standard_normal((size,) * 3), 1.5)
    volume = np.where(r < 1, 1.0 - 0.8 * (r < 0.35) + 2 * noise, -2.0)
    volume[(x - 0.4) ** 2 + (y - 0.4) ** 2 + (z - 0.4) ** 2 < 0.02] = 3
    return volume[None].astype(np.float32)


def case(original: np.ndarray, quality: float, cell: int = 8, seed: int = 0, **told: Any) -> Case:
    """A case whose reconstruction is `quality` (0 to 1) of the way from noise to a blurred original."""
    generator = np.random.default_rng(seed)
    grid = tuple(-(-s // cell) for s in original.shape[1:])
    cells = np.zeros(math.prod(grid), dtype=bool)
    cells[generator.permutation(cells.size)[: round(0.4 * cells.size)]] = True
    d, h, w = original.shape[1:]
    visible = cells.reshape(grid).repeat(cell, 0).repeat(cell, 1).repeat(cell, 2)[:d, :h, :w]
    weight = ndimage.gaussian_filter(visible.astype(float), 3)
    filled = np.stack([ndimage.gaussian_filter(c * visible, 3) / np.maximum(weight, 1e-3) for c in original])
    blurred = np.stack([ndimage.gaussian_filter(c, 1.2) for c in original])
    noise = np.random.default_rng(99).standard_normal(original.shape)
    predicted = quality * blurred + (1 - quality) * noise
    return {
        "original": original,
        "reconstruction": np.where(visible, original, predicted).astype(np.float32),
        "inpainting": np.where(visible, original, filled).astype(np.float32),
        "visible": visible.astype(np.uint8),
        "foreground": (original[0] > np.percentile(original, 20)).astype(np.uint8),
        "told": {
            "volume": "v-3f9a1c",
            "modality": "MR",
            "contrast": "T1",
            "spacing": [1.0, 1.0, 1.0],
            "start": [10, 20, 30],
            **told,
        },
    }


def write_examples(path: Path, cases: Sequence[Case]) -> Path:
    """RUN/examples/step_XXXXXXXX.safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}_{k}": np.ascontiguousarray(c[name]) for k, c in enumerate(cases) for name in c if name != "told"
    }
    save_file(tensors, path, metadata={"cases": json.dumps([c["told"] for c in cases])})
    return path


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A .jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run(run: Path, steps: int = 300, originals: Sequence[np.ndarray] = (), cell: int = 8) -> Path:
    """A finished run of `steps` steps that learned: 1.03 -> 0.62 against inpainting at 0.84."""
    run.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    (run / "config.toml").write_text(
        f'steps = {steps}\nseed = 1\nstore = "/home/jane/store"\n[model]\nname = "waveformer_tiny"\ncell = {cell}\n'
        "[optimizer]\nlearning_rate = 1e-3\nbetas = [0.9, 0.95]\n"
    )
    environment = {"torch": "2.13.0", "numpy": "2.3.1", "device": "cpu", "threads": 2, "platform": "Linux x86_64"}
    (run / "environment.json").write_text(json.dumps(environment))
    fall = lambda s: 0.6 + 0.43 * math.exp(-4 * s / steps)  # noqa: E731
    rows = [
        {
            "step": s,
            "loss": fall(s) * 0.9,
            "normalised_loss": fall(s) + 0.04 * float(generator.standard_normal()),
            "reconstruction": fall(s) * 0.9,
            "visible_share": 0.4,
            "hidden_share": 0.6,
            "learning_rate": 1e-3 * min(1, s / 30) * (0.5 + 0.5 * math.cos(math.pi * s / steps)),
            "gradient_norm": float(np.exp(0.3 * generator.standard_normal())),
            "seconds": 0.4 + 0.05 * float(generator.random()),
            "modality": "MR",
        }
        for s in range(1, steps + 1)
    ]
    write_lines(run / "metrics.jsonl", rows)
    measured = [
        {
            "step": s,
            "normalised_loss": fall(s) + 0.01,
            "inpainting": 0.84,
            "inpainting_own_mean": 0.71,
            "effective_rank": 24 - 6 * s / steps,
            "feature_std": 0.5 + 0.2 * s / steps,
            "target_cells": 512,
            "per_modality": {"MR": {"normalised_loss": fall(s) + 0.01, "inpainting": 0.84}},
        }
        for s in range(0, steps + 1, max(1, steps // 10))
    ]
    write_lines(run / "validation.jsonl", measured)
    originals = originals or (head(seed=0), head(seed=1))
    for step, quality in ((0, 0.0), (steps, 0.9)):
        cases = [case(o, quality, cell, seed=k, volume=f"v-3f9a1c{k}") for k, o in enumerate(originals)]
        write_examples(run / "examples" / f"step_{step:08d}.safetensors", cases)
    document = {
        "volumes": 3,
        "used": 3,
        "by_modality": {"MR": 2, "CT": 1},
        "by_contrast": {"T1": 2, "unknown": 1},
        "training": ["v-3f9a1c0", "v-3f9a1c1", "v-77aa01"],
        "held_out": {
            "kind": "region",
            "description": "The upper left quarter of every volume.",
            "volumes": ["v-3f9a1c0"],
        },
        "refused": [
            {
                "source_id": "s-91bc",
                "reason": "truncated",
                "sentence": "The file ends after 12 of 40 MB. Copy it again.",
            }
        ],
        "store_fingerprint": "b2a94f",
        "recipe": {"name": "head-1mm", "spacing": [1.0, 1.0, 1.0], "mr": {"percentiles": [0.5, 99.5]}},
    }
    (run / "data.json").write_text(json.dumps(document))
    summary = {
        "steps": steps,
        "seconds": 0.43 * steps,
        "seconds_per_step": 0.43,
        "parameters": 1_234_567,
        "model": "waveformer_tiny",
        "first": measured[0],
        "last": measured[-1],
        "resumed_from": [120],
        "finished": True,
    }
    (run / "summary.json").write_text(json.dumps(summary))
    return run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a finished run in a fresh folder."""
    return lambda **settings: write_run(tmp_path / "run", **settings)


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    """A finished run."""
    return make_run()


@pytest.fixture
def make_case() -> Callable[..., Case]:
    """Makes a case from an original [C, D, H, W]."""
    return case


@pytest.fixture
def save_examples() -> Callable[[Path, Sequence[Case]], Path]:
    """Writes an example file."""
    return write_examples


@pytest.fixture
def save_lines() -> Callable[[Path, Sequence[dict[str, Any]]], None]:
    """Writes a .jsonl file."""
    return write_lines
