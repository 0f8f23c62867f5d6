"""Pictures of held-out crops for the report: original, reconstruction, inpainting."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from wavespark.engine.learning.step import StepResult, voxel_mask
from wavespark.files import write_file
from wavespark.metrics import inpaint
from wavespark.sampling import Batch, Crop
from wavespark.shapes import Triple

_NOTE = (
    "Predicted cells are shown with their true mean and standard deviation: the network is asked for the shape within a cell only. "
    "Inpainting is shown as it is."
)


def write_examples(
    folder: Path,
    crops: Sequence[Crop],
    batches: Sequence[Batch],
    results: Sequence[StepResult],
    cell: Triple,
    step: int,
    at_most: int = 4,
) -> None:
    """`examples/step_XXXXXXXX.safetensors`: original, reconstruction, inpainting, visible,
    foreground of the first crops."""
    tensors: dict[str, Tensor] = {}
    cases = []
    for k, (crop, batch, result) in enumerate(list(zip(crops, batches, results, strict=True))[:at_most]):
        visible = voxel_mask(result.masks.visible, cell, batch.voxels.shape[2:])
        # Where a second view needs finer voxels, those of the first are larger than the store's.
        joined = [b / c for b, c in zip(crop.foreground.shape, batch.voxels.shape[2:], strict=True)]
        tensors |= {
            f"original_{k}": batch.voxels[0],
            f"reconstruction_{k}": reconstructed(batch, result, cell)[0],
            f"inpainting_{k}": inpaint(batch.voxels, visible)[0],
            f"visible_{k}": visible[0].to(torch.uint8),
            f"foreground_{k}": batch.foreground[0].to(torch.uint8),
        }
        cases.append(
            {
                "volume": crop.volume,
                "modality": crop.modality,
                "contrast": crop.contrast,
                "spacing": [s * j for s, j in zip(crop.spacing, joined, strict=True)],
                "start": list(crop.start),
            }
        )
    content = save(
        {name: t.contiguous() for name, t in tensors.items()}, metadata={"cases": json.dumps(cases), "note": _NOTE}
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / f"step_{step:08d}.safetensors", content)


def reconstructed(batch: Batch, result: StepResult, cell: Triple) -> Tensor:
    """Return the crop with its predicted cells in voxel values, with the true mean and scale of
    each cell."""
    t = result.targets
    cells = (result.prediction.float() * t.scale + t.mean).cpu()
    full = batch.voxels.clone()
    for (s, d, h, w), values in zip(result.predicted.nonzero().tolist(), cells, strict=True):
        place = full[
            s, :, d * cell[0] : (d + 1) * cell[0], h * cell[1] : (h + 1) * cell[1], w * cell[2] : (w + 1) * cell[2]
        ]
        place.copy_(values.permute(3, 0, 1, 2)[:, : place.shape[1], : place.shape[2], : place.shape[3]])
    return full
