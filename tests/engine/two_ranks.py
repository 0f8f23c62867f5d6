"""A program for torchrun: some updates in fp64, a batch norm, and who was asked to stop: what the first process finds, as JSON."""

import json
import sys
from dataclasses import replace

import torch
from torch import nn

from engine.small import small_settings
from wavespark.engine.learning.objective import Objective
from wavespark.engine.learning.optimizer import make_optimizer
from wavespark.engine.learning.schedule import learning_rate_at
from wavespark.engine.learning.update import Updater
from wavespark.engine.machine.distributed import Ranks, average_gradients, process_group, ranks_of
from wavespark.engine.machine.faults import Faults
from wavespark.engine.machine.precision import Precision
from wavespark.engine.machine.synced_norm import sync_batch_norm
from wavespark.engine.run.building import build_model, stems_of, training_crops
from wavespark.prepare import open_store
from wavespark.sampling import batches, split_store
from wavespark.sparse import SparseBatchNorm, VisibleCells

STEPS = 4


def losses(store_path: str) -> list[float]:
    """Of each step, over all processes."""
    torch.set_num_threads(1)
    settings = small_settings("data.batch=4", "data.crop=[24, 24, 24]")
    store, ranks, device = open_store(store_path), ranks_of(), torch.device("cpu")
    model = build_model(settings, stems_of(store)).double()
    objective = Objective(settings, model, settings.mask_plan(model.encoder.cell))
    optimizer = make_optimizer(objective, settings.optimizer)
    network = average_gradients(objective, ranks, "ddp", device)
    update = Updater(settings, objective, network, optimizer, Precision(settings, device), ranks, Faults())
    split = split_store(store, settings.box, settings.data.held_out_fraction, settings.run.seed)
    crops = training_crops(settings, store, split)
    found = []
    loader = batches(crops, start=0, stop=STEPS, workers=0, rank=ranks.rank, world=ranks.world)
    for step, batch in enumerate(loader, 1):
        assert len(batch.draws) == 4 // ranks.world
        rate = learning_rate_at(step, 20, settings.optimizer.learning_rate, 10, settings.optimizer.final_fraction)
        line = update(replace(batch, voxels=batch.voxels.double()), step, rate).line()
        found.append([line["loss"], line["normalised_loss"], line["gradient_norm"]])
    del update, network
    return found


def normed(ranks: Ranks) -> dict[str, list[float]]:
    """Batch norm of the samples of this process, summed up over all: of cells that reach out of the crop, and what it does to the gradients."""
    generator = torch.Generator().manual_seed(0)
    crop = torch.randn(4, 5, 7, 6, 8, dtype=torch.float64, generator=generator)
    visible = torch.rand(4, 2, 2, 2, generator=generator) < 0.6
    weight = torch.randn(4, 5, 7, 6, 8, dtype=torch.float64, generator=generator)
    mine = slice(ranks.rank, None, ranks.world)
    model = nn.Sequential(SparseBatchNorm(5, dtype=torch.float64))
    if ranks.world > 1:
        sync_batch_norm(model)
    x = crop[mine].requires_grad_()
    out = model(VisibleCells.from_dense(x, visible[mine], (4, 4, 4))).to_dense()
    (out.square() * weight[mine]).sum().backward()
    (norm,) = model
    found = {"out": out.detach().square().sum((0, 2, 3, 4)), "crop": x.grad.square().sum((0, 2, 3, 4))}
    found |= {"weight": norm.weight.grad, "bias": norm.bias.grad}
    found = {name: ranks.sum(value) for name, value in found.items()}
    found |= {"mean": norm.running_mean, "variance": norm.running_var}
    return {name: value.tolist() for name, value in found.items()}


if __name__ == "__main__":
    here = ranks_of()
    with process_group(here):
        asked = [here.any(name if here.rank else None) for name in (None, "SIGTERM")]  # the last process alone
        told = {"losses": losses(sys.argv[1]), "normed": normed(here), "asked": asked}
    if here.writes:
        print(json.dumps(told))
