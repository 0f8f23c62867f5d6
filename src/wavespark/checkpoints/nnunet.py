"""Exports for nnU-Net: a `.pth` in the form that its fine-tuning reads (that of nnssl), and a
trainer plug-in for encoders that nnU-Net does not know."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wavespark.checkpoints.pickled import write_tensors
from wavespark.files import write_file

CITATION = "wavespark: visible-only masked pre-training of encoders on unlabelled 3D head CT and MR"

TRAINER = '''"""nnU-Net trainer whose network is a wavespark encoder with the decoder that belongs to it.

Put this file into `nnunetv2/training/nnUNetTrainer/variants/`, set WAVESPARK_ENCODER to the folder of the export, and train with `-tr nnUNetTrainerWavespark`.
The plans must have as many input channels as the encoder's stem. nnU-Net's normalisation is not the export's: that is in config.json, `preparation`.
"""

import os

import wavespark as ws
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from wavespark.models import segmentation_model


class Network(nn.Module):
    def __init__(self, encoder, classes):
        super().__init__()
        self.network = segmentation_model(encoder, classes)
        self.modality = next(iter(encoder.stem_channels))

    def forward(self, x):
        return self.network(x, modality=os.environ.get("WAVESPARK_MODALITY", self.modality))


class nnUNetTrainerWavespark(nnUNetTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.enable_deep_supervision = False
        self.initial_lr = 1e-3

    @staticmethod
    def build_network_architecture(
        architecture_class_name, arch_init_kwargs, arch_init_kwargs_req_import, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        encoder = ws.load_encoder(os.environ["WAVESPARK_ENCODER"])
        if num_input_channels not in encoder.stem_channels.values():
            raise ValueError(f"the encoder takes {encoder.stem_channels}, the plans give {num_input_channels} input channel(s)")
        return Network(encoder, num_output_channels)

    def set_deep_supervision_enabled(self, enabled):
        pass
'''


def adaptation_plan(
    *, architecture: str, channels: int, spacing: float, patch: tuple[int, int, int], data: str
) -> dict[str, Any]:
    """Build the plan that nnU-Net needs to load the weights.

    Args:
        architecture: a name that nnU-Net knows, `ResEncL`.
        channels: of the input.
        spacing: mm per voxel.
        patch: voxels along each axis in pre-training.
        data: what it was trained on.
    """
    configuration = {"spacing": [spacing] * 3, "patch_size": list(patch)}
    return {
        "architecture_plans": {
            "arch_class_name": architecture,
            "arch_kwargs": None,
            "arch_kwargs_requiring_import": None,
        },
        "pretrain_plan": {
            "dataset_name": data,
            "plans_name": "wavespark",
            "configurations": {"onemmiso": configuration},
        },
        "pretrain_num_input_channels": channels,
        "recommended_downstream_patchsize": list(patch),
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
        "key_to_lpe": None,
    }


def write_nnunet(path: Path, weights: Mapping[str, Tensor], plan: Mapping[str, Any]) -> None:
    """Write the `.pth`.

    Args:
        path: file to write.
        weights: under nnU-Net's names (`stem...`, `stages...`, doubled as `all_modules`).
        plan: from `adaptation_plan`.
    """
    document = {
        "network_weights": {f"encoder.{name}": t.detach().cpu().contiguous() for name, t in weights.items()},
        "nnssl_adaptation_plan": dict(plan),
        "citations": [{"type": "Architecture", "name": "wavespark", "apa_citations": [CITATION]}],
    }
    write_tensors(path, document)


def write_trainer(folder: Path) -> None:
    """Write the trainer plug-in `nnUNetTrainerWavespark.py` beside an export."""
    write_file(folder / "nnUNetTrainerWavespark.py", TRAINER.encode())
