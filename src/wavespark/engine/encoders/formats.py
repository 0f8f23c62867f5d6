"""The encoder of a run in the forms that other programs read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavespark.checkpoints import FORMATS, Export, write_export
from wavespark.checkpoints.export import card
from wavespark.checkpoints.huggingface import write_huggingface
from wavespark.checkpoints.monai_bundle import write_bundle
from wavespark.checkpoints.nnunet import adaptation_plan, write_nnunet, write_trainer
from wavespark.checkpoints.onnx import write_onnx
from wavespark.engine.encoders.load import export_checkpoint, newest_encoder
from wavespark.errors import CheckpointError, SettingsError
from wavespark.models import Encoder, from_description
from wavespark.models.resenc import ResEnc
from wavespark.progress import Log, ignore_log
from wavespark.shapes import Triple


def export_as(
    run: Path,
    output: Path,
    format: str,
    *,
    modality: str | None = None,
    crop: Triple | None = None,
    log: Log = ignore_log,
) -> int:
    """Write the encoder of a run's newest checkpoint and return its step.

    Args:
        run: the run's folder; training may still go on.
        output: folder or file, see `FORMATS`.
        format: one of `FORMATS`.
        modality: the stem, for the forms that have one input (nnunet, monai, onnx); huggingface:
            the default stem.
        crop: voxels along D, H, W of the input of an ONNX file and the window of a bundle; that of
            pre-training if None.
        log: called with the names of damaged checkpoints that were passed over.

    Raises:
        SettingsError: if there is no such format, or a modality must be given.
        CheckpointError: if there is no checkpoint, all are damaged, or the model has no such form.
    """
    if format not in FORMATS:
        raise SettingsError(f"there is no format {format!r}: use one of {', '.join(FORMATS)}")
    if format in ("wavespark", "safetensors"):
        return export_checkpoint(run, output, format, log)
    encoder, export, step = newest_encoder(run, log)
    if format == "huggingface":
        write_huggingface(output, export, None if modality is None else choose_stem(encoder, modality))
        return step
    stem = choose_stem(encoder, modality)
    d, h, w = crop or export.config["provenance"]["crop"]
    size = (int(d), int(h), int(w))
    if format == "nnunet":
        _nnunet(encoder, export, stem, size, output)
    elif format == "monai":
        _monai(encoder, export, stem, size, output)
    else:
        example = torch.zeros(1, encoder.stem_channels[stem], *size)
        write_onnx(
            output, FixedSize(encoder, example, stem), example, [f"level{i}" for i in range(len(encoder.channels))]
        )
    return step


def choose_stem(encoder: Encoder, modality: str | None) -> str:
    """The stem that is meant.

    Raises:
        SettingsError: if it is not there, or there are several and none is named.
    """
    stems = encoder.stem_channels
    if modality is None and len(stems) > 1:
        raise SettingsError(
            f"this form has one input and the encoder has the stems {', '.join(stems)}: say which with --modality"
        )
    chosen = modality or next(iter(stems))
    if chosen not in stems:
        raise SettingsError(f"the encoder has no stem {chosen!r}, it has {', '.join(stems)}")
    return chosen


class FixedSize(nn.Module):
    """An encoder for crops of one size: which cells there are is worked out once, so that nothing
    but arithmetic is left."""

    def __init__(self, encoder: Encoder, example_BCDHW: Tensor, modality: str) -> None:
        super().__init__()
        self.encoder = encoder.eval()
        self.modality = modality
        self.layout = encoder.layout(example_BCDHW, None)
        with torch.no_grad():  # fills what the layout keeps
            self.encoder.encode(example_BCDHW, self.layout, modality=modality)

    def forward(self, crop_BCDHW: Tensor) -> tuple[Tensor, ...]:
        """[B, C, d, h, w] of every level, finest first."""
        return tuple(level.to_dense() for level in self.encoder.encode(crop_BCDHW, self.layout, modality=self.modality))


class OneInput(nn.Module):
    """An encoder with a fixed stem: crop -> features of every level, as MONAI's inferers call a
    network."""

    def __init__(self, encoder: Encoder, modality: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.modality = modality

    def forward(self, crop_BCDHW: Tensor, modality: str | None = None) -> tuple[Tensor, ...]:
        """Compute [B, C, d, h, w] of every level, finest first.

        Args:
            crop_BCDHW: prepared voxels.
            modality: the stem, if not the one of the bundle.
        """
        return tuple(self.encoder(crop_BCDHW, modality=modality or self.modality))


def bundle_network(description: Mapping[str, Any], modality: str) -> OneInput:
    """Build the network of a bundle with fresh weights; `configs/inference.json` calls it.

    Args:
        description: `kind`, `settings` and `stems` of an encoder.
        modality: the stem that its input goes through.
    """
    return OneInput(from_description(dict(description), device="cpu"), modality)


def _spacing(export: Export) -> float:
    value: Any = export.config["preparation"]["settings"].get("spacing_mm", 1.0)
    return float(value) if isinstance(value, int | float) else 1.0


def _nnunet(encoder: Encoder, export: Export, stem: str, size: Triple, output: Path) -> None:
    if isinstance(encoder, ResEnc):
        plan = adaptation_plan(
            architecture="ResEncL",
            channels=encoder.stem_channels[stem],
            spacing=_spacing(export),
            patch=size,
            data=f"{export.config['provenance']['volumes']} volumes",
        )
        write_nnunet(output, encoder.nnunet_weights(stem), plan)
        return
    if output.suffix:
        raise CheckpointError(
            f"nnU-Net knows no {type(encoder).__name__}, so a folder with a trainer plug-in is written: give --output without {output.suffix}"
        )
    write_export(output / "encoder", export)
    write_trainer(output)


def _monai(encoder: Encoder, export: Export, stem: str, size: Triple, output: Path) -> None:
    description = {**export.config["model"], "stems": export.config["stems"]}
    channels = encoder.stem_channels[stem]
    image = {
        "type": "image",
        "format": "magnitude",
        "num_channels": channels,
        "spatial_shape": list(size),
        "dtype": "float32",
    }
    metadata = {
        "name": f"{export.config['model']['name']} encoder",
        "task": f"features of {stem} head volumes",
        "description": "pre-trained by masked reconstruction; inputs are prepared by the recipe under `preparation`",
        "preparation": export.config["preparation"],
        "network_data_format": {
            "inputs": {"image": {**image, "modality": stem, "is_patch_data": True}},
            "outputs": {
                f"level{i}": {"type": "feature", "num_channels": c, "stride": s}
                for i, (c, s) in enumerate(zip(encoder.channels, encoder.strides, strict=True))
            },
        },
    }
    write_bundle(
        output,
        network={
            "_target_": "wavespark.engine.encoders.formats.bundle_network",
            "description": description,
            "modality": stem,
        },
        weights=OneInput(encoder, stem).state_dict(),
        window=size,
        metadata=metadata,
        card=card(export.config),
    )
