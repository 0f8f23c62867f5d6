"""Masked pre-training as one module: encode what is visible, densify, decode what is hidden."""

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn

from wavespark.models.decoder import LightDecoder
from wavespark.models.encoder import Encoder
from wavespark.models.idle import with_idle
from wavespark.models.settings import DecoderSettings
from wavespark.models.unet_pretraining import DensifiedDecoder
from wavespark.sparse import VisibleCells


class SparK(nn.Module):
    """A sparse encoder with a decoder to voxels (Tian et al., 2023); any encoder on visible cells
    will do.

    Args:
        encoder: an encoder on visible cells.
        decoder: settings of the light decoder; or `unet`, the decoder that segmentation uses later,
            which costs a dense pass at full resolution.
    """

    def __init__(self, encoder: Encoder, decoder: DecoderSettings | Literal["unet"]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder: LightDecoder | DensifiedDecoder = (
            DensifiedDecoder(encoder)
            if decoder == "unet"
            else LightDecoder(encoder.channels, encoder.strides, encoder.cell, encoder.stem_channels, decoder)
        )

    if TYPE_CHECKING:

        @overload
        def __call__(
            self,
            crop_BCDHW: Tensor,
            visible_BDHW: Tensor,
            predicted_BDHW: Tensor,
            modality: str,
            generator: torch.Generator | None = None,
            *,
            levels_too: Literal[False] = False,
        ) -> Tensor: ...
        @overload
        def __call__(
            self,
            crop_BCDHW: Tensor,
            visible_BDHW: Tensor,
            predicted_BDHW: Tensor,
            modality: str,
            generator: torch.Generator | None = None,
            *,
            levels_too: Literal[True],
        ) -> tuple[Tensor, list[VisibleCells]]: ...
        def __call__(
            self,
            crop_BCDHW: Tensor,
            visible_BDHW: Tensor,
            predicted_BDHW: Tensor,
            modality: str,
            generator: torch.Generator | None = None,
            *,
            levels_too: bool = False,
        ) -> Tensor | tuple[Tensor, list[VisibleCells]]: ...

    def forward(
        self,
        crop_BCDHW: Tensor,
        visible_BDHW: Tensor,
        predicted_BDHW: Tensor,
        modality: str,
        generator: torch.Generator | None = None,
        *,
        levels_too: bool = False,
    ) -> Tensor | tuple[Tensor, list[VisibleCells]]:
        """Predict voxels from visible cells; hidden voxels of the crop are never read.

        Args:
            crop_BCDHW: prepared voxels.
            visible_BDHW: bool, one value a cell, True where visible.
            predicted_BDHW: bool, one value a cell, True where voxels are predicted.
            modality: name of the stem and of the head.
            generator: draws of the encoder's stochastic depth in training mode.
            levels_too: also return the encoder's levels.

        Returns:
            [M, c, c, c, C]: the voxels of the predicted cells, in the order of
            `predicted_BDHW.nonzero()`; with `levels_too` a pair of that and the encoder's levels,
            finest first.
        """
        encoder, decoder = self.encoder, self.decoder
        layout = encoder.layout(crop_BCDHW, visible_BDHW)
        modality = encoder.modality_of(crop_BCDHW, modality)
        result: Tensor
        if isinstance(decoder, DensifiedDecoder):
            details: list[list[Tensor]] = []
            levels = encoder.encode(crop_BCDHW, layout, modality=modality, generator=generator, details=details)
            result = decoder(crop_BCDHW, levels, details, predicted_BDHW, modality)
        else:
            levels = encoder.encode(crop_BCDHW, layout, modality=modality, generator=generator)
            result = decoder(levels, predicted_BDHW, modality)
            if self.training:
                finer = range(len(levels) - decoder.scales)
                result = with_idle(result, (p for level in finer for p in encoder.own_parameters(level)))
        return (result, levels) if levels_too else result
