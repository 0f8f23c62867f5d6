"""Tiny encoders and masks for the laws: every parameter random, so that a bias or a norm that is used wrongly shows."""

import torch
from torch import Tensor

from wavespark.models import WaveFormer, WaveFormerSettings
from wavespark.shapes import ceil_div

SETTINGS = WaveFormerSettings(channels=(12, 24, 24), depths=(1, 2, 1), heads=(1, 2, 1), mlp_ratio=2)
PRECISIONS = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Tolerance of equality laws for each precision."""


def tiny_encoder(
    dtype: torch.dtype = torch.float64, seed: int = 0, stems: dict[str, int] | None = None, scale: float = 0.2
) -> WaveFormer:
    """Three stages, cells of 8 voxels; every parameter is drawn, norms around 1."""
    encoder = WaveFormer(SETTINGS, stems or {"any": 1})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in encoder.named_parameters():
            noise = scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.copy_(noise + (1 if "norm" in name and name.endswith("weight") else 0))
    return encoder.to(dtype).eval()


def crop_of(*size: int, batch: int = 2, channels: int = 1, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Random voxels [B, C, D, H, W]."""
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


def ragged(*grid: int, batch: int = 2, share: float = 0.5, seed: int = 2) -> Tensor:
    """Visible cells [B, D, H, W], a different number in each sample, at least one visible and one hidden."""
    total = grid[0] * grid[1] * grid[2]
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for b in range(batch):
        count = min(max(1, round(share * total) - b), total - 1)
        rows.append(torch.randperm(total, generator=generator).argsort() < count)
    return torch.stack(rows).view(batch, *grid)


def voxels_of(cells_BDHW: Tensor, size: tuple[int, ...], cell: int = 8) -> Tensor:
    """Booleans of cells as booleans of voxels [B, 1, D, H, W]."""
    voxels = cells_BDHW[:, None].repeat_interleave(cell, 2).repeat_interleave(cell, 3).repeat_interleave(cell, 4)
    return voxels[:, :, : size[0], : size[1], : size[2]]


def grid_of(size: tuple[int, ...], cell: int = 8) -> tuple[int, int, int]:
    """Cells of a crop."""
    return ceil_div(size, (cell,) * 3)
