"""Heads that turn the features of an encoder into the answer of a task.

B samples, C channels, K classes, L labels, N visible cells, D H W voxels.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavespark.downstream.plain_unet import PlainEncoder, PlainUNet
from wavespark.models import Encoder, Segmentation, describe, from_description, segmentation_model
from wavespark.models.segmentation import dense_decoder, take_pretrained
from wavespark.sparse import VisibleCells


class LinearSegmenter(nn.Module):
    """One linear layer from the features of all levels to the classes of a voxel: a measure of the
    features alone.

    The layer is applied at each level and the results are interpolated, which is the same as
    interpolating the features first.
    """

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        layers = [nn.Conv3d(c, classes, 1, bias=i == 0) for i, c in enumerate(encoder.channels)]
        for layer in layers:
            nn.init.zeros_(layer.weight)
        self.decoder = nn.ModuleList(layers)

    def forward(self, crop_BCDHW: Tensor, modality: str | None = None) -> Tensor:
        """Logits [B, K, D, H, W]."""
        levels = self.encoder(crop_BCDHW, modality=modality)
        logits: Tensor | None = None
        for level, layer in zip(reversed(levels), reversed(self.decoder), strict=True):
            finer: Tensor = layer(per_token_norm(level))
            logits = finer if logits is None else finer + _interpolated(logits, finer.shape[2:])
        if logits is None:
            return crop_BCDHW.new_zeros(0)
        return _interpolated(logits, crop_BCDHW.shape[2:])


class LightSegmenter(nn.Module):
    """A small feature pyramid (Lin et al., CVPR 2017) with a skip at full resolution, for machines
    without a GPU.

    Levels are projected to one width and added from coarse to fine, with a convolution at each
    scale; at full resolution a thin convolution joins them with the voxels, or with the features at
    stride 1 where the encoder has them.
    """

    def __init__(self, encoder: Encoder, classes: int, width: int = 32, thin: int = 8) -> None:
        super().__init__()
        self.encoder = encoder
        self.has_fine_level = encoder.strides[0] == 1
        channels = encoder.channels[1:] if self.has_fine_level else encoder.channels
        self.projections = nn.ModuleList(nn.Conv3d(c, width, 1) for c in channels)
        self.blocks = nn.ModuleList(_block(width, width) for _ in channels)
        if self.has_fine_level:
            self.fine = _block(encoder.channels[0], thin, kernel=1)
        else:
            self.voxels = nn.ModuleDict({name: _block(c, thin) for name, c in encoder.stem_channels.items()})
        self.narrow = nn.Conv3d(width, thin, 1)
        self.join = _block(2 * thin, thin)
        self.out = nn.Conv3d(thin, classes, 1)

    def forward(self, crop_BCDHW: Tensor, modality: str | None = None) -> Tensor:
        """Logits [B, K, D, H, W]."""
        name = self.encoder.modality_of(crop_BCDHW, modality)
        levels = self.encoder(crop_BCDHW, modality=name)
        fine = self.fine(levels.pop(0)) if self.has_fine_level else self.voxels[name](crop_BCDHW)
        x: Tensor | None = None
        for level, project, block in zip(
            reversed(levels), reversed(self.projections), reversed(self.blocks), strict=True
        ):
            projected = project(per_token_norm(level))
            x = block(projected if x is None else projected + _interpolated(x, projected.shape[2:]))
        coarse = fine if x is None else _interpolated(self.narrow(x), crop_BCDHW.shape[2:])
        logits: Tensor = self.out(self.join(torch.cat((fine, coarse), 1)))
        return logits


def _block(channels: int, width: int, kernel: int = 3) -> nn.Sequential:
    """Convolution, norm of each sample's channels in groups, activation."""
    convolution = nn.Conv3d(channels, width, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(min(8, width), width), nn.LeakyReLU(0.01))


def per_token_norm(level_BCDHW: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the channels of each token, so that levels and encoders are on one
    scale."""
    moved = level_BCDHW.movedim(1, -1)
    return F.layer_norm(moved, moved.shape[-1:]).movedim(-1, 1)


def _interpolated(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="trilinear", align_corners=False)


def dense_head(encoder: Encoder, classes: int, decoder: str) -> nn.Module:
    """Put a `full`, `light` or `linear` decoder on an encoder; a plain encoder gets the expanding
    path of its U-Net.

    Returns:
        A module with `.encoder` and `forward(crop, modality) -> logits [B, K, D, H, W]`.
    """
    if isinstance(encoder, PlainEncoder):
        return PlainUNet(encoder, classes)
    if decoder == "linear":
        return LinearSegmenter(encoder, classes)
    return LightSegmenter(encoder, classes) if decoder == "light" else segmentation_model(encoder, classes)


def transferable(encoder: Encoder) -> int:
    """Number of weight tensors of a decoder that was pre-trained with the encoder and that its
    segmentation decoder takes."""
    return len(take_pretrained(dense_decoder(encoder, 1), encoder.pretrained_decoder))


def set_class_prior(model: nn.Module, prior: Sequence[float]) -> None:
    """Set the bias of the last layer of a dense network to the logarithm of the class frequencies,
    so that it begins with their softmax.

    Args:
        model: from `dense_head`.
        prior: frequency of each class; frequencies below 1e-4 count as 1e-4.
    """
    bias = torch.tensor(prior).clamp(min=1e-4).log()
    with torch.no_grad():
        for layer in _last_layers(model):
            if layer.bias is not None:
                layer.bias.copy_(bias)


def _last_layers(model: nn.Module) -> list[nn.Conv3d]:
    if isinstance(model, LinearSegmenter):
        layers: Any = [model.decoder[0]]
    elif isinstance(model, Segmentation):
        decoder: Any = model.decoder
        layers = list(decoder.seg_layers) if hasattr(decoder, "seg_layers") else [decoder.out]
    else:
        layers = [model.out]
    return cast(list[nn.Conv3d], layers)


class CellClassifier(nn.Module):
    """Labels of a whole volume: each visible cell has an opinion and a weight for every label; the
    weighted mean over the volume's cells counts.

    Ilse et al., "Attention-based deep multiple instance learning" (ICML 2018), one attention a
    label. Only cells with foreground are computed.
    """

    def __init__(self, encoder: Encoder, labels: int, width: int = 128) -> None:
        super().__init__()
        self.encoder = encoder
        self.mix = nn.Sequential(nn.Linear(sum(encoder.channels), width), nn.GELU(), nn.LayerNorm(width))
        self.opinion = nn.Linear(width, labels)
        self.weight = nn.Linear(width, labels)
        self.vessel = nn.Linear(width, 1)
        for layer in (self.opinion, self.weight, self.vessel):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def cells(
        self, crop_BCDHW: Tensor, visible_BDHW: Tensor, modality: str | None = None
    ) -> tuple[VisibleCells, Tensor]:
        """The coarsest level (for its layout), and mixed features [N, width] of each visible
        cell."""
        levels = self.encoder(crop_BCDHW, visible_BDHW, modality=modality)
        known = [F.layer_norm(m, m.shape[-1:]) for m in (level.features.mean((1, 2, 3)) for level in levels)]
        return levels[-1], self.mix(torch.cat(known, 1))

    def votes(self, known_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Opinion and weight (before the softmax over a volume's cells) of each cell, both [N,
        L]."""
        return self.opinion(known_NC), self.weight(known_NC)

    def forward(self, crop_BCDHW: Tensor, visible_BDHW: Tensor, modality: str | None = None) -> Tensor:
        """Logits [B, L], each crop taken for a volume."""
        level, known = self.cells(crop_BCDHW, visible_BDHW, modality)
        opinion, weight = self.votes(known)
        counts = level.layout.counts
        pairs = zip(opinion.split(counts), weight.split(counts), strict=True)
        return torch.stack([pooled(o, w) for o, w in pairs])


def pooled(opinion_NL: Tensor, weight_NL: Tensor) -> Tensor:
    """Logits [L] of the volume to which the cells belong."""
    return (weight_NL.float().softmax(0) * opinion_NL.float()).sum(0)


def encoder_of(model: nn.Module) -> Encoder:
    """The encoder of a task's network."""
    return cast(Encoder, model.encoder)


def untrained(encoder: Encoder, seed: int) -> Encoder:
    """The same network with fresh weights: the scratch control."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = from_description(describe(encoder), device="cpu")
    fresh.preparation = encoder.preparation
    return fresh


def copied(encoder: Encoder) -> Encoder:
    """A copy of the network, to be trained without touching the given one."""
    twin = from_description(describe(encoder), device="cpu")
    twin.load_state_dict(encoder.state_dict())
    twin.pretrained_decoder = encoder.pretrained_decoder
    twin.preparation = encoder.preparation
    return twin
