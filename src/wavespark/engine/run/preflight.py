"""Checks before a run, and the lines that describe it: data, masks, device, disk space, end."""

import shutil
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

import torch

from wavespark.checkpoints import checkpoint_folders
from wavespark.config import PretrainSettings
from wavespark.engine.learning.objective import Objective, check_processes
from wavespark.engine.machine.device import choose_device, cores
from wavespark.engine.machine.distributed import ranks_of
from wavespark.engine.machine.precision import Precision
from wavespark.engine.run import folder
from wavespark.engine.run.building import build_model, choose_split, stems_of
from wavespark.errors import StoreError
from wavespark.files import read_lines
from wavespark.models import SparK
from wavespark.prepare import Store
from wavespark.shapes import Triple, ceil_div, product

VERIFIED_BYTES = 2**30
"""A larger store is not read as a whole before every run; `wavespark inspect STORE` does that."""
_ROOM_FOR_THE_REST = 64 * 2**20


def preflight(settings: PretrainSettings, store: Store, run: Path, *, fresh: bool = False) -> list[str]:
    """The lines to show before a run; with `fresh`, of one that begins again whatever is in its
    folder.

    Raises:
        StoreError: if an item of the store is damaged, or there is no room for the checkpoints,
            or the run's folder cannot be made.
        SettingsError: if the settings cannot be followed here, or the folder holds a run of others.
    """
    folder.check_place(run)
    if not fresh:
        folder.check_same(run, settings)
    ranks = ranks_of()
    check_processes(settings, ranks.world)
    device = choose_device(settings.run.device, ranks.local_rank)
    with torch.device("meta"):
        model = build_model(settings, stems_of(store))
    split = choose_split(settings, store)
    kinds = Counter(f"{v.modality} {v.contrast or 'of unknown contrast'}" for v in store)
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {settings.run.threads or cores()} thread(s)"
    )
    processes = f", {ranks.world} processes ({settings.run.parallel})" if ranks.world > 1 else ""
    return [
        f"data    {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}; {_verified(store)}; held out: {split.description}",
        f"model   {settings.model.name}, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters with its decoder",
        f"crops   {_box(settings.data.crop)} voxels, {settings.data.batch} a step; {cells_of(settings, model.encoder.cell)}",
        *_views(settings, store, model.encoder.cell),
        f"device  {name}, {Precision(settings, device).name}{processes}",
        f"disk    {_room(settings, model, run)}",
        f"end     {_end(settings, run)}",
    ]


def checkpoint_bytes(objective: Objective) -> int:
    """Return the bytes of a checkpoint: all weights (projectors and EMA teacher included) and two
    fp32 moments of trained ones."""
    kept = [*objective.model.state_dict().values(), *objective.extra_tensors().values()]
    return sum(t.numel() * t.element_size() for t in kept) + 8 * sum(p.numel() for p in objective.parameters())


def checkpoints_kept(settings: PretrainSettings) -> int:
    """Return the largest number of checkpoints on the disk: the newest, the one being written, and
    the permanent ones."""
    run = settings.run
    for_good = run.steps // run.keep_every if run.keep_every else 0
    return min(run.keep + 1 + for_good, -(-run.steps // run.checkpoint_every) + 1)


def cells_of(settings: PretrainSettings, cell: Triple) -> str:
    """The grid of cells of a crop, and how many of them are hidden."""
    masking = settings.masking(cell)
    grid = ceil_div(settings.data.crop, cell)
    return f"grid {_box(grid)} of cells of {_box(cell)}: {masking.num_hidden} of {product(grid)} hidden"


def _views(settings: PretrainSettings, store: Store, cell: Triple) -> list[str]:
    """Describe the second view, if the run has one."""
    chosen = settings.objective
    if not chosen.second_view:
        return []
    d, h, w = (t * c * f for t, c, f in zip(chosen.second_view_cells, cell, chosen.second_view_factor, strict=True))
    extent = " x ".join(f"{n * s:.4g}" for n, s in zip((d, h, w), store[0].spacing, strict=True))
    return [
        f"views   each voxel of a crop joins {_box(chosen.second_view_factor)} of the store; the second view is {_box((d, h, w))} of them "
        f"({extent} mm) where the first hides"
    ]


def _verified(store: Store) -> str:
    if store.bytes > VERIFIED_BYTES:
        return f"{store.bytes / 2**30:.1f} GiB, not verified (`wavespark inspect` does)"
    damaged = store.verify()
    if damaged:
        worst = damaged[0]
        raise StoreError(
            f"{store.path} is damaged in {len(damaged)} place(s): {worst.id}/{worst.file}: {worst.sentence}. "
            "Remove these items and prepare again, or bring the store back from a backup"
        )
    return f"{store.bytes / 2**20:.1f} MiB, every byte verified"


def _room(settings: PretrainSettings, model: SparK, run: Path) -> str:
    with torch.device("meta"):
        objective = Objective(settings, model, settings.mask_plan(model.encoder.cell))
    count, each = checkpoints_kept(settings), checkpoint_bytes(objective)
    there = len(checkpoint_folders(run / folder.CHECKPOINTS))
    needed = max(0, count - there) * each + _ROOM_FOR_THE_REST
    place = next(p for p in (run.absolute(), *run.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise StoreError(
            f"{place} has {free / 2**20:.0f} MiB free, but {count} checkpoints of {each / 2**20:.0f} MiB and the rest need {needed / 2**20:.0f} MiB: "
            "make room, use another --output, or keep fewer (run.keep, run.keep_every)"
        )
    return f"{count} checkpoints of {each / 2**20:.0f} MiB; {free / 2**30:.1f} GiB free"


def _end(settings: PretrainSettings, run: Path) -> str:
    """When the run will be done, from the steps that it has done; nothing is known before it has
    done any."""
    lines = read_lines(run / folder.METRICS, strict=False)[-50:]
    seconds = [line["seconds"] + line["load_seconds"] for line in lines if {"seconds", "load_seconds"} <= line.keys()]
    if not seconds:
        return f"{settings.run.steps} steps; shown after the first ones (`wavespark estimate` measures before)"
    left = max(0, settings.run.steps - int(lines[-1]["step"]))
    end = datetime.now() + timedelta(seconds=left * median(seconds))
    return f"{left} of {settings.run.steps} steps left, {median(seconds):.2f} s each until now: about {end:%Y-%m-%d %H:%M}, held-out measures on top"


def _box(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
