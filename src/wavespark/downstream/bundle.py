"""A fine-tuned segmentation for other programs: a MONAI bundle that is ready to infer, or ONNX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavespark.checkpoints.monai_bundle import write_bundle
from wavespark.checkpoints.onnx import write_onnx
from wavespark.config.downstream import FinetuneSettings
from wavespark.downstream.classify import Classify
from wavespark.downstream.heads import encoder_of
from wavespark.downstream.saving import TaskModel, load_model, make_task
from wavespark.engine.encoders.formats import choose_stem
from wavespark.errors import CheckpointError
from wavespark.models import from_description
from wavespark.shapes import Triple


class Segmenter(nn.Module):
    """A task's dense network with one input: crop -> logits."""

    def __init__(self, network: nn.Module, modality: str) -> None:
        super().__init__()
        self.network = network
        self.modality = modality

    def forward(self, crop_BCDHW: Tensor) -> Tensor:
        """Logits [B, K, D, H, W]."""
        result: Tensor = self.network(crop_BCDHW, modality=self.modality)
        return result


def bundle_network(config: Mapping[str, Any], modality: str) -> Segmenter:
    """Build the network of a bundle with fresh weights; `configs/inference.json` calls it.

    Args:
        config: `task`, `settings` and `encoder` of the model's config.json.
        modality: name of the stem.
    """
    task = make_task(config["task"], FinetuneSettings.model_validate(config["settings"]))
    return Segmenter(task.build(from_description(config["encoder"], device="cpu")), modality)


def export_task(
    run: Path, output: Path, format: str, *, modality: str | None = None, crop: Triple | None = None
) -> None:
    """Write the model of a fine-tuning run.

    Args:
        run: a folder that `wavespark finetune` wrote.
        output: a folder (monai) or a file (onnx).
        format: `monai` or `onnx`.
        modality: which stem, where there are several.
        crop: voxels of the window; that of fine-tuning if None.

    Raises:
        CheckpointError: if the model has no such form.
    """
    found = load_model(run, "cpu")
    if format not in ("monai", "onnx") or isinstance(found.task, Classify):
        raise CheckpointError(
            f"a fine-tuned model for {found.task.kind} is not exported as {format}: dense models as monai or onnx; the folder {run / 'model'} "
            "itself is self-describing (wavespark.downstream.load_model)"
        )
    encoder = encoder_of(found.model)
    stem = choose_stem(encoder, modality)
    size = crop or found.task.settings.data.crop
    network = Segmenter(found.model, stem)
    if format == "onnx":
        write_onnx(output, network, torch.zeros(1, encoder.stem_channels[stem], *size), ["logits"])
        return
    description = {key: found.config[key] for key in ("task", "settings", "encoder")}
    write_bundle(
        output,
        network={"_target_": "wavespark.downstream.bundle.bundle_network", "config": description, "modality": stem},
        weights=network.state_dict(),
        window=size,
        metadata=_metadata(found, stem, size),
        card=(run / "model" / "README.md").read_text(encoding="utf-8"),
    )


def _metadata(found: TaskModel, stem: str, size: Triple) -> dict[str, Any]:
    channels = encoder_of(found.model).stem_channels[stem]
    classes = int(found.config["task"].get("classes", 1))
    image = {"type": "image", "format": "magnitude", "spatial_shape": list(size), "dtype": "float32"}
    return {
        "name": f"wavespark {found.task.kind}",
        "task": f"{found.task.kind} in {stem} head volumes",
        "description": "inputs are prepared by the recipe under `preparation`",
        "preparation": found.config["preparation"],
        "network_data_format": {
            "inputs": {"image": {**image, "num_channels": channels, "modality": stem, "is_patch_data": True}},
            "outputs": {"pred": {**image, "num_channels": classes, "is_patch_data": True}},
        },
    }
