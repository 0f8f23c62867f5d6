"""ResEnc: the residual encoder of nnU-Net, computed on visible cells only, with nnU-Net's parameter
names.

After Isensee et al., "nnU-Net revisited" (2024): a stem, then stages of two-convolution blocks (the
first of a stage strided, its shortcut pooled and projected), instance norm, leaky ReLU. Norms are
taken over the visible tokens of each sample; convolutions of stride 1 and 2 read the neighbour
cells that are visible and zeros elsewhere. With everything visible, and a crop of whole cells, it
is the dense network to rounding.
Axes: B batch, C channels, D H W voxels, N visible cells, b tokens along an edge of a cell.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wavespark.errors import ModelError
from wavespark.models.blocks import depth_rates, kept_samples, scaled
from wavespark.models.encoder import Encoder
from wavespark.models.idle import with_idle
from wavespark.models.settings import ResEncSettings
from wavespark.sparse import (
    AvgPool3d,
    CellLayout,
    SparseInstanceNorm,
    StridedConv3d,
    SubmanifoldConv3d,
    VisibleCells,
    gather_cells,
)


class ResEnc(Encoder):
    """The encoder: voxels of the visible cells in, features at every stride out, the finest at that
    of the voxels.

    With one stem its parameters are named as in nnU-Net (`stem.convs.0.conv.weight`,
    `stages.1.blocks.0.conv1.norm.bias`, ...), with several the stems are `stems.MR...`.
    `nnunet_weights` gives the names of nnU-Net in either case.

    Example:
        >>> encoder = ResEnc(ResEncSettings(channels=(4, 8), blocks=(1, 1)), stems={"MR": 1})
        >>> [tuple(level.shape) for level in encoder(torch.zeros(1, 1, 4, 4, 4))]
        [(1, 4, 4, 4, 4), (1, 8, 2, 2, 2)]
    """

    settings: ResEncSettings

    def __init__(self, settings: ResEncSettings, stems: Mapping[str, int]) -> None:
        super().__init__(
            settings, stems, cell=settings.cell, strides=settings.strides, channels=settings.level_channels
        )
        first = settings.channels[0]
        made = {name: _Stem(count, first) for name, count in stems.items()}
        if len(made) == 1:
            (self.stem,) = made.values()
        else:
            self.stems = nn.ModuleDict(made)
        rates = depth_rates(settings.drop_path, sum(settings.blocks))
        self.stages = nn.ModuleList()
        below = first
        for i, (channels, blocks) in enumerate(zip(settings.channels, settings.blocks, strict=True)):
            drops = [rates.pop(0) for _ in range(blocks)]
            self.stages.append(_Stage(below, channels, 1 if i == 0 else 2, drops, settings.gradient_checkpointing))
            below = channels
        self.apply(_initialise)

    def encode(
        self,
        crop_BCDHW: Tensor,
        layout: CellLayout,
        *,
        modality: str | None = None,
        generator: torch.Generator | None = None,
        details: list[list[Tensor]] | None = None,
    ) -> list[VisibleCells]:
        """The visible-only computation: stem, then the stages, each of which is a level."""
        chosen = self.modality_of(crop_BCDHW, modality)
        stems = self.named_stems()
        x = VisibleCells(features=gather_cells(crop_BCDHW, layout, self.cell), layout=layout)
        x = stems[chosen](x)
        idle = [m.conv.bias for m in self.modules() if isinstance(m, _ConvNorm) and m.conv.bias is not None]
        if self.training:
            idle += (p for name, stem in stems.items() if name != chosen for p in stem.parameters())
        x = x.with_features(with_idle(x.features, dict.fromkeys(idle)))
        levels = []
        for stage in self.stages:
            x = stage(x, generator)
            levels.append(x)
        return levels

    def named_stems(self) -> dict[str, nn.Module]:
        """The stem of each modality."""
        return dict(self.stems.items()) if len(self.stem_channels) > 1 else {next(iter(self.stem_channels)): self.stem}

    def nnunet_weights(self, modality: str | None = None) -> dict[str, Tensor]:
        """The weights under the names of nnU-Net's encoder, `stem...` and `stages...`, with its
        duplicates `all_modules`.

        Args:
            modality: name of the stem, needed where there are several.
        """
        stems = self.named_stems()
        if modality not in stems and len(stems) > 1:
            raise ModelError(f"this encoder has the stems {sorted(stems)}: say which with modality=")
        stem = stems.get(modality or "", next(iter(stems.values())))
        named = {f"stem.{name}": t for name, t in stem.state_dict().items()}
        named |= {f"stages.{name}": t for name, t in self.stages.state_dict().items()}
        doubled = {}
        for name, weight in named.items():
            head, part, kind = name.rsplit(".", 2)
            doubled[name] = weight
            doubled[f"{head}.all_modules.{('conv', 'norm').index(part)}.{kind}"] = weight
        return doubled


def from_nnunet(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a `ResEnc` with one stem, from weights under nnU-Net's names, with or without a
    leading `encoder.`; anything else is left out."""
    named = {name.removeprefix("encoder."): t for name, t in weights.items() if not name.startswith("decoder.")}
    return {n: t for n, t in named.items() if n.startswith(("stem.", "stages.")) and "all_modules" not in n}


class _ConvNorm(nn.Module):
    """Convolution and instance norm on visible cells; `conv` and `norm` as nnU-Net names them.

    A bias of the convolution is kept for nnU-Net and not computed: the norm takes away whatever is
    added to all tokens of a channel.
    """

    def __init__(self, channels: int, out_channels: int, kernel: int = 3, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.conv = (
            SubmanifoldConv3d(channels, out_channels, kernel, bias=bias)
            if stride == 1
            else StridedConv3d(channels, out_channels, kernel, stride, bias=bias)
        )
        self.norm = SparseInstanceNorm(out_channels)

    def forward(self, x: VisibleCells) -> VisibleCells:
        result: VisibleCells = self.norm(self.conv.without_bias(x))
        return result


class _Stem(nn.Module):
    """One convolution at the stride of the voxels."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([_ConvNorm(channels, out_channels)])

    def forward(self, x: VisibleCells) -> VisibleCells:
        return _leaky(self.convs[0](x))


class _Stage(nn.Module):
    """Residual blocks, the first of which is strided; `blocks` as nnU-Net names them."""

    def __init__(self, channels: int, out_channels: int, stride: int, drops: list[float], recompute: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _Block(out_channels if i else channels, out_channels, 1 if i else stride, drop, recompute)
            for i, drop in enumerate(drops)
        )

    def forward(self, x: VisibleCells, generator: torch.Generator | None) -> VisibleCells:
        for block in self.blocks:
            x = block(x, generator)
        return x


class _Block(nn.Module):
    def __init__(self, channels: int, out_channels: int, stride: int, drop_path: float, recompute: bool) -> None:
        super().__init__()
        self.drop_path, self.recompute = drop_path, recompute
        self.conv1 = _ConvNorm(channels, out_channels, 3, stride)
        self.conv2 = _ConvNorm(out_channels, out_channels)
        shortcut: list[nn.Module] = [AvgPool3d(stride)] if stride > 1 else []
        if channels != out_channels:
            shortcut.append(_ConvNorm(channels, out_channels, 1, bias=False))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, x: VisibleCells, generator: torch.Generator | None) -> VisibleCells:
        keep = kept_samples(x, self.drop_path if self.training else 0.0, generator)
        if self.recompute and torch.is_grad_enabled():
            out: Any = checkpoint(self._run, x.features, x, keep, use_reentrant=False, preserve_rng_state=False)
        else:
            out = self._run(x.features, x, keep)
        return x.with_features(out)

    def _run(self, features: Tensor, x: VisibleCells, keep: Tensor | None) -> Tensor:
        x = x.with_features(features)
        branch = self.conv2(_leaky(self.conv1(x))).features
        return F.leaky_relu(self.skip(x).features + scaled(branch, keep), 0.01, inplace=True)


def _leaky(x: VisibleCells) -> VisibleCells:
    """In place: of what a norm made, which nobody else reads."""
    return x.with_features(F.leaky_relu(x.features, 0.01, inplace=True))


def _initialise(module: nn.Module) -> None:
    """Kaiming-normal for leaky ReLU, biases zero, and the last norm of a block zero: nnU-Net's
    InitWeights_He and init_last_bn_before_add_to_0."""
    if isinstance(module, SubmanifoldConv3d | StridedConv3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, _Block):
        for p in module.conv2.norm.parameters():
            nn.init.zeros_(p)
