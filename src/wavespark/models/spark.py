"""Masked pre-training as one module: encode what is visible, densify, decode what is hidden."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from wavespark.models.decoder import DecoderSettings, LightDecoder
from wavespark.models.encoder import Encoder
from wavespark.models.unet_pretraining import DensifiedDecoder


class SparK(nn.Module):
    """A sparse encoder with a decoder to voxels (Tian et al., 2023), for any encoder on visible cells.

    Args:
        encoder: computes visible cells only.
        decoder: settings of the light decoder; or `unet`, the very decoder that segmentation uses later, which costs a dense pass at full resolution.
    """

    def __init__(self, encoder: Encoder, decoder: DecoderSettings | Literal["unet"]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder: LightDecoder | DensifiedDecoder = (
            DensifiedDecoder(encoder)
            if decoder == "unet"
            else LightDecoder(encoder.channels, encoder.strides, encoder.cell, encoder.stem_channels, decoder)
        )

    def forward(
        self,
        crop_BCDHW: Tensor,
        visible_BDHW: Tensor,
        predicted_BDHW: Tensor,
        modality: str,
        generator: torch.Generator | None = None,
        *,
        levels_too: bool = False,
    ) -> Any:
        """[M, c, c, c, C]: the voxels of the predicted cells, in the order of `predicted_BDHW.nonzero()`; hidden voxels of the crop are never read.

        `generator` draws the stochastic depth of the encoder. With `levels_too` a pair: that, and the encoder's levels.
        """
        layout = self.encoder.layout(crop_BCDHW, visible_BDHW)
        modality = self.encoder.modality_of(crop_BCDHW, modality)
        dense = isinstance(self.decoder, DensifiedDecoder)
        details: list[list[Tensor]] | None = [] if dense else None
        levels = self.encoder.encode(crop_BCDHW, layout, modality=modality, generator=generator, details=details)
        if isinstance(self.decoder, DensifiedDecoder):
            result: Tensor = self.decoder(crop_BCDHW, levels, details or [], predicted_BDHW, modality)
            return (result, levels) if levels_too else result
        result = self.decoder(levels, predicted_BDHW, modality)
        for level in range(len(levels) - self.decoder.scales) if self.training else ():
            for p in self.encoder.own_parameters(level):  # levels finer than the decoder join with an exact zero
                result = result + 0 * p.sum()
        return (result, levels) if levels_too else result
