"""Every model of the catalogue, cut down: its kind, stages and options as they are, few channels and blocks. Every parameter is drawn."""

from dataclasses import replace

import torch
from torch import Tensor

from oracles import dense_resenc, dense_seed, dense_waveformer
from wavespark.models import Encoder, ResEncSettings, WaveFormerSettings, from_description, list_models
from wavespark.models.catalogue import _KINDS
from wavespark.models.settings import MODELS

VARIANTS = {
    "waveformer_small": {"with finer scales": {"multi_scale": True}},
    "isotropic_small": {
        "with one sparse scale": {"sparse": (10,)},
        "with two sparse scales": {"sparse": (10, 8)},
    },
}
STEMS = {"any": 1}


def reduced(name: str):
    """The settings of a model or variant with what costs time cut down."""
    model, _, variant = name.partition(" ")
    base = replace(MODELS[model], **(VARIANTS[model][variant] if variant else {}))
    if isinstance(base, WaveFormerSettings):
        n = base.stages
        return replace(
            base, channels=(12, 24, 24, 24)[:n], heads=(1, 2, 1, 2)[:n], depths=(1, 2, 1, 1)[:n], mlp_ratio=2
        )
    if isinstance(base, ResEncSettings):
        n = max(3, len(base.channels) - 2)  # two stages less: cells of 4, 4 and 8 voxels
        return replace(base, channels=(4, 6, 8, 8)[:n], blocks=(1, 2, 1, 1)[:n])
    return replace(base, patch=base.patch // 4, dim=18, heads=2, depth=2, mlp_ratio=2)


def _distinct() -> list[str]:
    """Names of models and variants; of those that are the same once cut down, one."""
    names = [*list_models(), *(f"{name} {variant}" for name, more in VARIANTS.items() for variant in more)]
    return sorted({reduced(name): name for name in reversed(names)}.values())


NAMES = _distinct()


def encoder_of(
    name: str, dtype: torch.dtype = torch.float64, seed: int = 0, stems: dict[str, int] | None = None, **changes
) -> Encoder:
    """A cut-down model in evaluation mode, every parameter and running statistic drawn."""
    settings = replace(reduced(name), **changes)
    kind = next(k for k, (_, cls) in _KINDS.items() if cls is type(settings))
    fields = {f: getattr(settings, f) for f in settings.__dataclass_fields__}
    encoder = from_description({"kind": kind, "settings": fields, "stems": stems or STEMS})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in [*encoder.named_parameters(), *encoder.named_buffers()]:
            if p.is_floating_point():
                noise = 0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
                around_one = ("norm" in key and key.endswith("weight")) or key.endswith("running_var")
                p.copy_(noise.clamp(-0.5, 0.5) + 1 if around_one else noise)
    return encoder.to(dtype).eval()


def sizes_of(encoder: Encoder) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """A crop of whole cells and one that ends inside of cells."""
    c = encoder.cell[0]
    return (
        ((2 * c, c, 2 * c), (c + c // 2 + 1, c, 2 * c - 1))
        if c >= 32
        else ((3 * c, 2 * c, c), (2 * c + 3, c + 1, 2 * c - 1))
    )


def oracle(encoder: Encoder, crop: Tensor, visible: Tensor | None = None) -> list[Tensor]:
    """The levels by the independent dense network of the same weights."""
    weights, settings = dict(encoder.named_parameters()) | dict(encoder.named_buffers()), encoder.settings
    if isinstance(settings, WaveFormerSettings):
        return dense_waveformer.dense_levels(
            weights, settings.depths, settings.heads, crop, visible, multi_scale=settings.multi_scale
        )
    if isinstance(settings, ResEncSettings):
        return dense_resenc.dense_levels(weights, settings.blocks, crop, visible)
    return dense_seed.dense_levels(
        weights, settings.patch, settings.depth, settings.heads, crop, visible, len(settings.sparse)
    )
