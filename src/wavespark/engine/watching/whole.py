"""Whole held-out slices for the report: original, reconstruction, harmonic inpainting.

A slice is covered by crops side by side, each behind a mask of its own, as training saw crops.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from wavespark.engine.learning.step import Scoring, StepResult, reconstruct, target_cells, voxel_mask
from wavespark.engine.watching.examples import reconstructed
from wavespark.engine.watching.validation import HeldOut, baseline_scores
from wavespark.files import write_file
from wavespark.masking.plan import HELD_OUT_STEP
from wavespark.metrics import harmonic
from wavespark.models import SparK
from wavespark.objectives import Score
from wavespark.prepare import Store
from wavespark.sampling import Batch, Region, Split, collate, read_crop
from wavespark.shapes import Triple
from wavespark.sparse import cut_cells

SLICES = (0.3, 0.5, 0.7)
"""Places of the slices in the layer of crops, as shares of its thickness."""
MOST_CROPS = 25
"""Crops in a layer; of a larger one the middle is shown.

Bounds the time: two seconds on a laptop for 12 crops of 64^3.
"""
_CLEAR = ("T1", "T1C", "T2", "FLAIR", "PD", "DWI", "CT")
"""Contrasts that show most of a brain, clearest first; others (angiography) come last."""


def choose_region(store: Store, split: Split) -> tuple[Region, int]:
    """Choose what is shown: the held-out region with the clearest contrast, and the axis across its
    slices.

    A slab is cut across its thin side, so that the whole slice is held out; a whole volume is cut
    into axial slices.
    """

    def order(region: Region) -> tuple[int, int, str]:
        volume = store[region.volume]
        rank = _CLEAR.index(volume.contrast) if volume.contrast in _CLEAR else len(_CLEAR)
        return rank, -min(region.size), region.volume

    region = min(split.held_out, key=order)
    is_slab = region.size != store[region.volume].size
    return region, 1 if is_slab else 2


def tile_starts(region: Region, crop: Triple, axis: int) -> list[Triple]:
    """Return the first voxel of each crop of the layer: side by side, centred on the region.

    >>> tile_starts(Region(volume="v", start=(0, 0, 0), size=(100, 64, 60)), (64, 64, 64), 1)
    [(-14, 0, -2), (50, 0, -2)]
    """
    along: list[list[int]] = []
    for a in range(3):
        count = 1 if a == axis else min(-(-region.size[a] // crop[a]), int(MOST_CROPS**0.5))
        first = region.start[a] + (region.size[a] - count * crop[a]) // 2
        along.append([first + k * crop[a] for k in range(count)])
    return [(d, h, w) for d in along[0] for h in along[1] for w in along[2]]


@torch.no_grad()
def write_whole(folder: Path | None, store: Store, split: Split, held_out: HeldOut, model: SparK, step: int) -> None:
    """Reconstruct one layer of crops and write a few of its slices as `whole_XXXXXXXX.safetensors`.

    Under torchrun every process computes, because sharded weights need all of them, and one writes.

    Args:
        folder: of the examples; None computes and writes nothing.
        store: prepared volumes.
        split: what is held out.
        held_out: settings and masking of the held-out measure.
        model: encoder and decoder; left in the mode in which it was.
        step: of the run.
    """
    settings = held_out.settings
    if settings.objective.second_view:  # its crops have voxels of another size than the store's
        return
    region, axis = choose_region(store, split)
    volume, crop, cell = store[region.volume], settings.data.crop, model.encoder.cell
    starts = tile_starts(region, crop, axis)
    planes = [int(share * crop[axis]) for share in SLICES]
    across = [a for a in range(3) if a != axis]
    first = [min(s[a] for s in starts) for a in across]
    sides = [max(s[a] for s in starts) + crop[a] - f for a, f in zip(across, first, strict=True)]
    canvas = torch.zeros(5, len(planes), volume.channels, *sides)
    scores: list[Score] = []
    baselines: list[Score] = []
    was_training = model.training
    model.eval()
    for number, start in enumerate(starts):
        batch = collate([(-1000 - number, read_crop(volume, region, start, crop))])
        masks = held_out.plan.held_out_masks(batch.mask_keys)
        visible = voxel_mask(masks.visible, cell, crop)
        pictures = [batch.voxels[0]] * 3
        if settings.objective.where == "everywhere" or (masks.hidden & target_cells(batch.foreground, cell)).any():
            result = reconstruct(model, batch, masks, settings.run.seed, HELD_OUT_STEP, Scoring.of(settings.objective))
            scores.append(result.score)
            baselines.append(baseline_scores(batch, result, cell)[2])
            filled = _with_own_means(harmonic(batch.voxels, visible), batch, result, cell)
            pictures[1:] = reconstructed(batch, result, cell)[0], filled[0]
        pictures += [f.expand_as(batch.voxels[0]).float() for f in (visible[0], batch.foreground[0])]
        tile = torch.stack([t.index_select(axis + 1, torch.tensor(planes)) for t in pictures])
        a, b = (start[x] - f for x, f in zip(across, first, strict=True))
        canvas[..., a : a + crop[across[0]], b : b + crop[across[1]]] = tile.movedim(axis + 2, 1)
    model.train(was_training)
    if folder is None or not scores:
        return
    original, prediction, filled, visible, foreground = canvas
    tensors = {"original": original, "reconstruction": prediction, "harmonic": filled}
    flags = {"visible": visible[:, 0], "foreground": foreground[:, 0]}
    about = {
        "volume": volume.id,
        "modality": volume.modality,
        "contrast": volume.contrast,
        "spacing": list(volume.spacing),
        "axis": axis,
        "crops": len(starts),
        "part": "slab" if axis == 1 else "volume",
        "normalised_loss": _mean_loss(scores),
        "harmonic_own_mean": _mean_loss(baselines),
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: t.contiguous() for name, t in tensors.items()}
    content |= {name: t.to(torch.uint8).contiguous() for name, t in flags.items()}
    write_file(folder / f"whole_{step:08d}.safetensors", save(content, metadata={"whole": json.dumps(about)}))


def _with_own_means(filled: Tensor, batch: Batch, result: StepResult, cell: Triple) -> Tensor:
    """Return the crop with inpainting in the predicted cells, each shifted to its true mean.

    The reconstruction is shown with the true mean and standard deviation of every cell, so
    inpainting gets the mean.
    """
    inside = cut_cells(batch.foreground[:, None].float(), result.predicted, cell)
    values = cut_cells(filled, result.predicted, cell)
    own = (values * inside).sum((1, 2, 3), keepdim=True) / inside.sum((1, 2, 3), keepdim=True).clamp(min=1)
    shifted = batch.voxels.clone()
    for (s, *at), shift in zip(
        result.predicted.nonzero().tolist(), (result.targets.mean.cpu() - own).flatten(1), strict=True
    ):
        d, h, w = (slice(a * c, (a + 1) * c) for a, c in zip(at, cell, strict=True))
        shifted[s, :, d, h, w] = filled[s, :, d, h, w] + shift[:, None, None, None]
    return shifted


def _mean_loss(scores: list[Score]) -> float | None:
    total = scores[0]
    for score in scores[1:]:
        total = total + score
    value = float(total.normalised_loss)
    return value if math.isfinite(value) else None  # nothing was scored
