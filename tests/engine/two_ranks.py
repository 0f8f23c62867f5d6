"""A program for torchrun: some updates in fp64, whose losses the first process prints as JSON."""

import json
import sys
from dataclasses import replace

import torch

from engine.small import small_settings
from wavespark.engine.building import build_model, stems_of, training_crops
from wavespark.engine.distributed import across, joined, ranks_of
from wavespark.engine.faults import Faults
from wavespark.engine.objective import Objective
from wavespark.engine.optimizer import learning_rate, make_optimizer
from wavespark.engine.precision import Precision
from wavespark.engine.update import Updater
from wavespark.prepare import open_store
from wavespark.sampling import batches, split_store

STEPS = 4


def losses(store_path: str) -> list[float]:
    """Of each step, over all processes."""
    torch.set_num_threads(1)
    settings = small_settings("data.batch=4", "data.crop=[24, 24, 24]")
    store, ranks, device = open_store(store_path), ranks_of(), torch.device("cpu")
    with joined(ranks):
        model = build_model(settings, stems_of(store)).double()
        objective = Objective(settings, model, settings.masking(model.encoder.cell))
        optimizer = make_optimizer(objective, settings.optimizer)
        network = across(objective, ranks, "ddp", device)
        update = Updater(settings, objective, network, optimizer, Precision(settings, device), ranks, Faults())
        split = split_store(store, settings.box, settings.data.held_out_fraction, settings.run.seed)
        crops = training_crops(settings, store, split)
        found = []
        loader = batches(crops, start=0, stop=STEPS, workers=0, rank=ranks.rank, world=ranks.world)
        for step, batch in enumerate(loader, 1):
            assert len(batch.draws) == 4 // ranks.world
            rate = learning_rate(step, 20, settings.optimizer)
            line = update(replace(batch, voxels=batch.voxels.double()), step, rate).line()
            found.append([line["loss"], line["normalised_loss"], line["gradient_norm"]])
        del update, network
    return found


if __name__ == "__main__":
    told = losses(sys.argv[1])
    if ranks_of().writes:
        print(json.dumps(told))
