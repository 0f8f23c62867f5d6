"""An encoder with a dense decoder on top: the published one for a WaveFormer, that of nnU-Net for a
ResEnc.

Axes: B batch, C channels, D H W voxels or tokens, K classes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from wavespark.errors import ModelError
from wavespark.models.encoder import Encoder
from wavespark.models.settings import Setting
from wavespark.models.unet_decoder import UNetDecoder
from wavespark.models.waveformer import WaveFormer
from wavespark.models.wavelet_decoder import WaveletDecoder

DenseDecoder = WaveletDecoder | UNetDecoder


def dense_decoder(encoder: Encoder, outputs: int, **settings: Setting) -> DenseDecoder:
    """Build the decoder that belongs to an encoder, with fresh weights and `outputs` channels out.

    Raises:
        ModelError: if a setting is not one of the decoder.
    """
    if outputs < 1:
        raise ModelError(f"a decoder needs at least 1 class, got {outputs}")
    kind = WaveletDecoder if isinstance(encoder, WaveFormer) else UNetDecoder
    chosen: dict[str, Any] = {**settings}
    try:
        return kind(encoder.channels, encoder.strides, encoder.stem_channels, outputs, **chosen)
    except TypeError:
        known = "deep_supervision, convolutions" if kind is UNetDecoder else "none"
        raise ModelError(f"{kind.__name__} has not all of the settings {sorted(settings)}; it has: {known}") from None


class Segmentation(nn.Module):
    """Logits of every voxel.

    Args:
        encoder: any encoder; it is fine-tuned with the decoder.
        decoder: a decoder from `dense_decoder`.
    """

    def __init__(self, encoder: Encoder, decoder: DenseDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(
        self, crop_BCDHW: Tensor, modality: str | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the logits of every voxel, [B, K, D, H, W].

        Args:
            crop_BCDHW: prepared voxels, any size.
            modality: name of the stem, needed where there are several.
            generator: draws of stochastic depth in training mode.
        """
        details: list[list[Tensor]] = []
        layout = self.encoder.layout(crop_BCDHW, None)
        chosen = self.encoder.modality_of(crop_BCDHW, modality)
        levels = self.encoder.encode(crop_BCDHW, layout, modality=chosen, generator=generator, details=details)
        logits: Tensor = self.decoder(crop_BCDHW, [level.to_dense() for level in levels], details, chosen)
        return logits


def segmentation_model(encoder: Encoder, classes: int, **settings: Setting) -> Segmentation:
    """Build a segmentation model from an encoder and the decoder that belongs to it: `model(crop,
    modality)` -> logits [B, classes, D, H, W].

    Where a decoder was pre-trained and exported with the encoder (`decoder.kind = "unet"`), its
    weights are used, except those of the last layer.

    Args:
        encoder: an encoder from `create_model` or `load_encoder`.
        classes: channels of the logits, background included.
        settings: settings of the decoder, e.g. `convolutions=2` for a ResEnc.

    Raises:
        ModelError: if a setting is not known.
    """
    decoder = dense_decoder(encoder, classes, **settings)
    take_pretrained(decoder, encoder.pretrained_decoder)
    return Segmentation(encoder, decoder)


def take_pretrained(decoder: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Copy the weights that fit and return their names; those of the last layer, made for voxels,
    usually do not fit."""
    own = decoder.state_dict()
    fitting = {name: t for name, t in weights.items() if name in own and own[name].shape == t.shape}
    fitting = {name: t for name, t in fitting.items() if not name.startswith(("out.", "seg_layers."))}
    decoder.load_state_dict({**own, **fitting})
    return sorted(fitting)
