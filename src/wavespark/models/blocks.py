"""The parts of a WaveFormer: attention between cells on low-pass tokens, rotary positions, the
feed-forward network that crosses cells.

Axes: C channels, N visible cells, b tokens along an edge of a cell, L tokens, H heads.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wavespark.models.long_wavelets import exchange_low_pass
from wavespark.sparse import CellLayout, VisibleCells, submanifold_conv


class WaveletBlock(nn.Module):
    """Attention between cells on their low-pass tokens, then a feed-forward network whose 3^3
    depthwise convolution crosses cells.

    Args:
        channels: channels of the tokens.
        heads: heads of the attention.
        mlp_ratio: widening of the feed-forward network.
        drop_path: probability to leave the block out for a sample.
        scales: finer low-pass scales that attend inside each cell, beside the coarsest between
            cells.
        wavelet: `haar`, or one that PyWavelets names, with everything visible.
        levels: levels of the wavelet; used by other wavelets than Haar.
        crosses_cells: whether the feed-forward network has the depthwise convolution, which reads
            neighbour cells.
        recompute: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        mlp_ratio: int,
        drop_path: float,
        *,
        scales: int = 0,
        wavelet: str = "haar",
        levels: int = 0,
        crosses_cells: bool = True,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.drop_path, self.wavelet, self.levels, self.recompute = drop_path, wavelet, levels, recompute
        self.norm1 = nn.LayerNorm(channels)
        self.attention = CellAttention(channels, heads)
        self.inner = nn.ModuleList(CellAttention(channels, heads) for _ in range(scales))
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = (HaloMLP if crosses_cells else TokenMLP)(channels, mlp_ratio * channels)

    def forward(self, x: VisibleCells, rotation: "Rotation", generator: torch.Generator | None) -> VisibleCells:
        # Drawn before, not inside what may be computed twice.
        keep = kept_samples(x, self.drop_path if self.training else 0.0, generator)
        if self.recompute and torch.is_grad_enabled():
            features: Tensor = checkpoint(
                self._run, x.features, x, rotation, keep, use_reentrant=False, preserve_rng_state=False
            )
            return x.with_features(features)
        return x.with_features(self._run(x.features, x, rotation, keep))

    def normed(self, x: VisibleCells) -> VisibleCells:
        """Return the normalised features, to which the wavelet of the block is applied."""
        return x.with_features(self.norm1(x.features)).zero_outside()

    def _run(self, features: Tensor, x: VisibleCells, rotation: "Rotation", keep: Tensor | None) -> Tensor:
        x = x.with_features(features)
        h = self.normed(x)
        x = x.with_features(x.features + scaled(self._exchanged(h, rotation), keep)).zero_outside()
        h = x.with_features(self.norm2(x.features))
        return x.with_features(x.features + scaled(self.mlp(h).features, keep)).zero_outside().features

    def _exchanged(self, h: VisibleCells, rotation: "Rotation") -> Tensor:
        if self.wavelet != "haar" and self.levels:
            return exchange_low_pass(h, self.wavelet, self.levels, self.attention.whole)
        # With Haar, the DWT over all levels of a cell, an update of the one low-pass token and the
        # inverse DWT with untouched details come down
        # to exchanging the mean of the cell: the low-pass is 2^(1.5 L) times the mean, which the
        # block divides away and multiplies back.
        mean = h.features.mean((1, 2, 3), keepdim=True)
        update = self.attention(mean.flatten(1), h, rotation)[:, None, None, None]
        out = h.features + (update - mean)
        for scale, attention in enumerate(self.inner):
            out = out + _within_cells(attention, h, 2 ** (scale + 1))  # type: ignore[arg-type]
        return out


class CellAttention(nn.Module):
    """Multi-head self-attention between the low-pass tokens of the visible cells of each sample,
    with rotary positions."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, tokens_NC: Tensor, x: VisibleCells, rotation: "Rotation") -> Tensor:
        n, channels = tokens_NC.shape
        q, k, v = self.qkv(tokens_NC).view(n, 3, self.heads, channels // self.heads).unbind(1)
        q, k = rotation.turn(q), rotation.turn(k)
        return self.project(attend(q, k, v, x.layout).reshape(n, channels))

    def whole(self, tokens_BLC: Tensor, positions_L3: Tensor, present_BL: Tensor | None = None) -> Tensor:
        """[B, L, C]: attention within each row of tokens, all of which lie at the same
        positions."""
        b, n, channels = tokens_BLC.shape
        q, k, v = self.qkv(tokens_BLC).view(b, n, 3, self.heads, channels // self.heads).unbind(2)
        rotation = Rotation(cells_N3=positions_L3)
        q, k, v = (t.transpose(1, 2) for t in (rotation.turn(q), rotation.turn(k), v))
        mask = None if present_BL is None else present_BL[:, None, None, :]
        out: Tensor = self.project(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        return out


def _within_cells(attention: CellAttention, h: VisibleCells, edge: int) -> Tensor:
    """[N, b, b, b, C]: an update of the low-pass tokens of a finer scale, `edge` a cell edge, by
    attention inside each cell."""
    n, b, *_, channels = h.features.shape
    parts = b // edge
    split = h.features.view(n, edge, parts, edge, parts, edge, parts, channels)
    positions = torch.cartesian_prod(*[torch.arange(edge, device=h.features.device)] * 3)
    inside = h.layout.inside((edge,) * 3)
    present = None if inside is None else inside.flatten(1)
    update = attention.whole(split.mean((2, 4, 6)).flatten(1, 3), positions, present)
    update = update.view(n, edge, 1, edge, 1, edge, 1, channels)
    return update.expand_as(split).reshape(h.features.shape)


def attend(q_NHC: Tensor, k_NHC: Tensor, v_NHC: Tensor, layout: CellLayout) -> Tensor:
    """[N, heads, C]: attention within each sample over its gathered visible cells; samples may have
    different numbers of them."""
    if layout.is_even:
        q, k, v = (t.unflatten(0, (layout.batch_size, -1)).transpose(1, 2) for t in (q_NHC, k_NHC, v_NHC))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)
    rows = layout.padded_rows()
    present = rows < len(layout)
    q, k, v = (torch.cat((t, t.new_zeros(1, *t.shape[1:])))[rows].transpose(1, 2) for t in (q_NHC, k_NHC, v_NHC))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=present[:, None, None, :])
    return out.transpose(1, 2)[present]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rotation:
    """Rotary positions along the three axes of the cell grid (Su et al., "RoFormer", 2021):
    attention depends on offsets only, for any grid size."""

    cells_N3: Tensor

    @classmethod
    def of(cls, layout: CellLayout) -> "Rotation":
        return cls(cells_N3=layout.cells[:, 1:])

    def angles(self, pairs: int, dtype: torch.dtype) -> Tensor:
        """[N, 3 * pairs]: wavelengths from 128 down to 4 cells along each axis; a single one is the
        longest, so that no two offsets look alike."""
        exponent = torch.linspace(1, 0, pairs, dtype=torch.float64, device=self.cells_N3.device)
        frequency = 2 * torch.pi / (4.0 * 32.0**exponent)
        return (self.cells_N3[:, :, None] * frequency).flatten(1).to(dtype)

    def turn(self, x_NHC: Tensor) -> Tensor:
        """The features with pairs of channels turned by the angles of their cell; a remainder of
        channels (head size modulo 6) stays as it is."""
        pairs = x_NHC.shape[-1] // 6
        angles = self.angles(pairs, torch.float64)
        cos, sin = (f(angles)[:, None].to(x_NHC.dtype) for f in (torch.cos, torch.sin))
        a, b, rest = x_NHC.split((3 * pairs, 3 * pairs, x_NHC.shape[-1] - 6 * pairs), -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos, rest), -1)


class HaloMLP(nn.Module):
    """1^3 expansion, norm, GELU, 3^3 depthwise convolution over visible tokens, norm, GELU, 1^3
    projection."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.depthwise = DepthwiseConv3d(hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: VisibleCells) -> VisibleCells:
        h = x.with_features(F.gelu(self.norm1(self.expand(x.features))))
        h = self.depthwise(h)
        return h.with_features(self.project(F.gelu(self.norm2(h.features))))


class TokenMLP(nn.Module):
    """Expansion, GELU, projection of each token alone."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: VisibleCells) -> VisibleCells:
        return x.with_features(self.project(F.gelu(self.expand(x.features))))


class LocalBlock(nn.Module):
    """The feed-forward half of a `WaveletBlock`: reads neighbours, but no cell further away."""

    def __init__(self, channels: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mlp = HaloMLP(channels, mlp_ratio * channels)

    def forward(self, x: VisibleCells) -> VisibleCells:
        h = x.with_features(self.norm(x.features))
        return x.with_features(x.features + self.mlp(h).features).zero_outside()


class DepthwiseConv3d(nn.Module):
    """3^3 depthwise submanifold convolution on visible cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: VisibleCells) -> VisibleCells:
        return submanifold_conv(x, self.weight, self.bias)


def kept_samples(x: VisibleCells, rate: float, generator: torch.Generator | None) -> Tensor | None:
    """[N, 1, 1, 1, 1]: 0 for the cells of samples whose block is left out, else 1 / (1 - rate)
    (Huang et al., "Deep networks with stochastic depth")."""
    if rate == 0:
        return None
    kept = torch.rand(x.batch_size, generator=generator) >= rate
    scale = (kept / (1 - rate)).to(x.features.device, x.features.dtype, non_blocking=True)
    return scale[x.cells[:, 0]][:, None, None, None, None]


def scaled(branch: Tensor, keep: Tensor | None) -> Tensor:
    """The branch of a block, left out where `keep` says so."""
    return branch if keep is None else branch * keep


def depth_rates(largest: float, blocks: int) -> list[float]:
    """Probabilities to leave out a block, growing linearly with depth from 0.

    >>> depth_rates(0.5, 3)
    [0.0, 0.25, 0.5]
    """
    return torch.linspace(0, largest, blocks, device="cpu").tolist()


def initialise(module: nn.Module) -> None:
    """Fresh weights: truncated normal projections, depthwise kernels that keep the variance."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, DepthwiseConv3d):
        nn.init.normal_(module.weight, std=(2 / 27) ** 0.5)
        nn.init.zeros_(module.bias)
