"""WaveFormer: a hierarchical 3-D transformer whose global attention sees one low-pass wavelet token per cell, computed on visible cells only.

After Hasan et al., "WaveFormer: a 3D transformer with wavelet-driven feature representation for efficient medical image segmentation" (2025), with its
published faults mended: every merge uses all eight parities, the low-pass gain is normalised, relative positions are exact and free of the crop's size.
Axes: B batch, C channels, D H W voxels or grid, N visible cells, b tokens along an edge of a cell, L heads x tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavespark.errors import ModelError, ShapeError
from wavespark.shapes import Triple, as_triple, ceil_div
from wavespark.sparse import CellLayout, VisibleCells, gather_cells, split_blocks, submanifold_conv


@dataclass(frozen=True, kw_only=True, slots=True)
class WaveFormerSettings:
    """The shape of a WaveFormer; one entry a stage. Stage i has stride 2^(i+1), the last stage has one token a cell."""

    channels: tuple[int, ...] = (48, 96, 192, 384)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    mlp_ratio: int = 4
    drop_path: float = 0.0
    """Largest probability to leave out a block for a sample; it grows linearly with depth from 0."""

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.depths) == len(self.heads) >= 1:
            raise ModelError(
                f"channels {self.channels}, depths {self.depths} and heads {self.heads} must name the same stages"
            )
        check_heads(self.channels, self.heads)
        if not 0 <= self.drop_path < 1:
            raise ModelError(f"drop_path {self.drop_path} must be in [0, 1)")

    @property
    def stages(self) -> int:
        return len(self.channels)


def check_heads(channels: tuple[int, ...], heads: tuple[int, ...]) -> None:
    """Raises a ModelError where channels cannot be shared out to heads."""
    for c, h in zip(channels, heads, strict=True):
        if h < 1 or c % h or c // h < 6:
            raise ModelError(
                f"{c} channels in {h} head(s): a head needs a whole number of channels, at least 6 for rotary positions"
            )


class WaveFormer(nn.Module):
    """The encoder: voxels of the visible cells in, features at every stride out.

    Example:
        >>> encoder = WaveFormer(WaveFormerSettings(channels=(12, 24), depths=(1, 1), heads=(1, 2)), stems={"MR": 1})
        >>> [tuple(level.shape) for level in encoder(torch.zeros(1, 1, 8, 8, 8))]
        [(1, 12, 4, 4, 4), (1, 24, 2, 2, 2)]
    """

    def __init__(self, settings: WaveFormerSettings, stems: Mapping[str, int]) -> None:
        super().__init__()
        if not stems:
            raise ModelError("an encoder needs at least one stem")
        self.settings = settings
        self.stem_channels = dict(stems)
        self.preparation: dict[str, Any] = {}
        """The recipe that the input needs: fingerprint and settings; set when an export is loaded."""
        stages = settings.stages
        self.channels = settings.channels
        """Channels of each level, finest first."""
        self.strides = tuple(2 ** (i + 1) for i in range(stages))
        """Voxels per token at each level."""
        self.cell: Triple = as_triple(2**stages)
        """Voxels per hidden unit."""
        self.stems = nn.ModuleDict({name: nn.Linear(8 * count, settings.channels[0]) for name, count in stems.items()})
        rates = torch.linspace(0, settings.drop_path, sum(settings.depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        self.merges = nn.ModuleList()
        self.norms = nn.ModuleList()
        for i, (channels, depth, heads) in enumerate(
            zip(settings.channels, settings.depths, settings.heads, strict=True)
        ):
            blocks = [WaveletBlock(channels, heads, settings.mlp_ratio, rates.pop(0)) for _ in range(depth)]
            self.stages.append(nn.ModuleList(blocks))
            self.norms.append(nn.LayerNorm(channels))
            if i + 1 < stages:
                self.merges.append(Merge(channels, settings.channels[i + 1]))
        self.apply(initialise)

    def forward(
        self,
        crop_BCDHW: Tensor,
        visible_BDHW: Tensor | None = None,
        *,
        modality: str | None = None,
        generator: torch.Generator | None = None,
    ) -> list:
        """Features of every level, finest first.

        Args:
            crop_BCDHW: prepared voxels; any size, also odd and anisotropic.
            visible_BDHW: bool, one value a cell of the grid `ceil(size / cell)`, True where visible; None = all visible.
            modality: which stem, needed where there are several.
            generator: draws of stochastic depth in training mode.

        Returns:
            With `visible`: `VisibleCells`. Without: dense tensors [B, C, ceil(size / stride)].

        Raises:
            ShapeError: if the shapes do not fit.
            ModelError: if there is no such stem.
        """
        if visible_BDHW is None:
            layout = self.layout(crop_BCDHW, None)
            return [
                level.to_dense() for level in self.encode(crop_BCDHW, layout, modality=modality, generator=generator)
            ]
        return self.encode(crop_BCDHW, self.layout(crop_BCDHW, visible_BDHW), modality=modality, generator=generator)

    def layout(self, crop_BCDHW: Tensor, visible_BDHW: Tensor | None) -> CellLayout:
        """Which cells of the crop are computed."""
        if crop_BCDHW.ndim != 5:
            raise ShapeError(f"a crop must be [B, C, D, H, W], got shape {tuple(crop_BCDHW.shape)}")
        batch, _, d, h, w = crop_BCDHW.shape
        if visible_BDHW is None:
            visible_BDHW = torch.ones(batch, *ceil_div((d, h, w), self.cell), dtype=torch.bool)
        elif visible_BDHW.shape[0] != batch:
            raise ShapeError(f"the crop has {batch} sample(s) and `visible` {visible_BDHW.shape[0]}")
        return CellLayout.of(visible_BDHW, size=(d, h, w), cell=self.cell, device=crop_BCDHW.device)

    def encode(
        self,
        crop_BCDHW: Tensor,
        layout: CellLayout,
        *,
        modality: str | None = None,
        generator: torch.Generator | None = None,
    ) -> list[VisibleCells]:
        """The visible-only computation: stem, then for every stage blocks, a norm for the level, a merge."""
        x = self._stem(crop_BCDHW, layout, modality)
        rotation = Rotation.of(layout)
        levels = []
        for i, blocks in enumerate(self.stages):
            if i:
                x = self.merges[i - 1](x)
            for block in blocks:  # type: ignore[union-attr, attr-defined]
                x = block(x, rotation, generator)
            levels.append(x.with_features(self.norms[i](x.features)).zero_outside())
        return levels

    def _stem(self, crop_BCDHW: Tensor, layout: CellLayout, modality: str | None) -> VisibleCells:
        if modality is None:
            if len(self.stems) > 1:
                raise ModelError(f"this encoder has the stems {sorted(self.stems)}: say which with modality=")
            modality = next(iter(self.stems))
        elif modality not in self.stems and set(self.stems) == {"any"}:
            modality = "any"
        if modality not in self.stems:
            raise ModelError(f"no stem for modality {modality!r}; this encoder has {sorted(self.stems)}")
        if crop_BCDHW.shape[1] != self.stem_channels[modality]:
            raise ShapeError(
                f"the stem {modality!r} takes {self.stem_channels[modality]} channel(s), the crop has {crop_BCDHW.shape[1]}"
            )
        voxels = split_blocks(gather_cells(crop_BCDHW, layout, self.cell))
        tokens = self.stems[modality](voxels)
        if self.training:  # an idle stem joins the graph with an exact zero, so that no rank has an unused parameter
            idle = [p.sum() for name, stem in self.stems.items() if name != modality for p in stem.parameters()]
            tokens = tokens + 0 * sum(idle) if idle else tokens
        return VisibleCells(features=tokens, layout=layout).zero_outside()


class WaveletBlock(nn.Module):
    """Attention between cells on their low-pass tokens, then a feed-forward network whose 3^3 depthwise convolution crosses cells."""

    def __init__(self, channels: int, heads: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(channels)
        self.attention = CellAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = HaloMLP(channels, mlp_ratio * channels)

    def forward(self, x: VisibleCells, rotation: "Rotation", generator: torch.Generator | None) -> VisibleCells:
        keep = _kept_samples(x, self.drop_path if self.training else 0.0, generator)
        h = x.with_features(self.norm1(x.features)).zero_outside()
        # With Haar, the DWT over all levels of a cell, an update of the one low-pass token and the inverse DWT with untouched details come down
        # to exchanging the mean of the cell: the low-pass is 2^(1.5 L) times the mean, which the block divides away and multiplies back.
        mean = h.features.mean((1, 2, 3), keepdim=True)
        update = self.attention(mean.flatten(1), h, rotation)[:, None, None, None]
        x = x.with_features(x.features + _scaled(h.features + (update - mean), keep)).zero_outside()
        h = x.with_features(self.norm2(x.features))
        return x.with_features(x.features + _scaled(self.mlp(h).features, keep)).zero_outside()


class CellAttention(nn.Module):
    """Multi-head self-attention between the low-pass tokens of the visible cells of each sample, with rotary positions."""

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


def attend(q_NHC: Tensor, k_NHC: Tensor, v_NHC: Tensor, layout: CellLayout) -> Tensor:
    """[N, heads, C]: attention within each sample over its gathered visible cells; samples may have different numbers of them."""
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
    """Rotary positions along the three axes of the cell grid (Su et al., "RoFormer", 2021): attention depends on offsets only, for any grid size."""

    cells_N3: Tensor

    @classmethod
    def of(cls, layout: CellLayout) -> "Rotation":
        return cls(cells_N3=layout.cells[:, 1:])

    def angles(self, pairs: int, dtype: torch.dtype) -> Tensor:
        """[N, 3 * pairs]: wavelengths from 128 down to 4 cells along each axis; a single one is the longest, so that no two offsets look alike."""
        exponent = torch.linspace(1, 0, pairs, dtype=torch.float64, device=self.cells_N3.device)
        frequency = 2 * torch.pi / (4.0 * 32.0**exponent)
        return (self.cells_N3[:, :, None] * frequency).flatten(1).to(dtype)

    def turn(self, x_NHC: Tensor) -> Tensor:
        """The features with pairs of channels turned by the angles of their cell; a remainder of channels (head size modulo 6) stays as it is."""
        pairs = x_NHC.shape[-1] // 6
        angles = self.angles(pairs, torch.float64)
        cos, sin = (f(angles)[:, None].to(x_NHC.dtype) for f in (torch.cos, torch.sin))
        a, b, rest = x_NHC.split((3 * pairs, 3 * pairs, x_NHC.shape[-1] - 6 * pairs), -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos, rest), -1)


class HaloMLP(nn.Module):
    """1^3 expansion, norm, GELU, 3^3 depthwise convolution over visible tokens, norm, GELU, 1^3 projection."""

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


class DepthwiseConv3d(nn.Module):
    """3^3 depthwise submanifold convolution on visible cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: VisibleCells) -> VisibleCells:
        return submanifold_conv(x, self.weight, self.bias)


class Merge(nn.Module):
    """2^3 tokens of a cell become one: all eight side by side, norm, projection."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8 * channels)
        self.project = nn.Linear(8 * channels, out_channels, bias=False)

    def forward(self, x: VisibleCells) -> VisibleCells:
        return x.with_features(self.project(self.norm(split_blocks(x.features)))).zero_outside()


def _kept_samples(x: VisibleCells, rate: float, generator: torch.Generator | None) -> Tensor | None:
    """[N, 1, 1, 1, 1]: 0 for the cells of samples whose block is left out, else 1 / (1 - rate) (Huang et al., "Deep networks with stochastic depth")."""
    if rate == 0:
        return None
    kept = torch.rand(x.batch_size, generator=generator) >= rate
    scale = (kept / (1 - rate)).to(x.features.device, x.features.dtype)
    return scale[x.cells[:, 0]][:, None, None, None, None]


def _scaled(branch: Tensor, keep: Tensor | None) -> Tensor:
    return branch if keep is None else branch * keep


def initialise(module: nn.Module) -> None:
    """Fresh weights: truncated normal projections, depthwise kernels that keep the variance."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, DepthwiseConv3d):
        nn.init.normal_(module.weight, std=(2 / 27) ** 0.5)
        nn.init.zeros_(module.bias)
