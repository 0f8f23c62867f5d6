"""The endless sequence of training crops, numbered by draw, and its batches of one modality.

A draw is a function of (seed, draw): `Philox(key=[seed, draw])` decides volume, place and
augmentation. The loader has no state, the position of a run is one integer, and the samples do not
depend on workers, on restarts, or on the order in which they are made.
"""

import signal
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from wavespark.errors import ExitCode, SettingsError, StoreError, TrainingStopped
from wavespark.prepare import Store
from wavespark.randomness import sample_stream, stream
from wavespark.sampling.augment import Augmentation
from wavespark.sampling.crops import Crop, Region, random_crop, widened
from wavespark.shapes import Triple

_AHEAD = 4
"""Batches that a loader process makes ahead of the run."""
_GRACE_SECONDS = 8
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Crops of one modality. B samples, C channels, D H W voxels."""

    voxels: Tensor
    """float32 [B, C, D, H, W]."""
    foreground: Tensor
    """bool [B, D, H, W]."""
    modality: str
    draws: tuple[int, ...]
    """Position of each sample in the sequence."""
    mask_keys: tuple[str, ...]
    """Keys of the samples' masks: content of the volume and number of the draw."""
    patients: tuple[str, ...] = ()
    """Whose each sample is; where it is not said, every sample counts as a patient of its own."""

    def copied(self) -> "Batch":
        """The same batch in memory of its own."""
        return replace(self, voxels=self.voxels.clone(), foreground=self.foreground.clone())

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from which a copy to an accelerator waits for
        nothing; `DataLoader` asks for it."""
        return replace(self, voxels=self.voxels.pin_memory(), foreground=self.foreground.pin_memory())


class CropDataset(Dataset):
    """Draw number -> crop.

    Raises:
        SettingsError: if `weights` name a modality that is not there, or leave nothing to draw.
    """

    def __init__(
        self,
        store: Store,
        regions: Sequence[Region],
        *,
        crop: Triple,
        batch: int,
        seed: int,
        augmentation: Augmentation,
        weights: dict[str, float] | None = None,
    ) -> None:
        self.store = store
        self.crop = crop
        self.batch = batch
        self.seed = seed
        self.augmentation = augmentation
        self.of_modality: dict[str, list[Region]] = {}
        for region in regions:
            self.of_modality.setdefault(store[region.volume].modality, []).append(region)
        self.modalities = sorted(self.of_modality)
        weights = weights or {}
        shares = np.array([weights.get(m, len(self.of_modality[m])) for m in self.modalities], dtype=np.float64)
        # A weight for some would be compared with a number of volumes of the others.
        if (weights and set(weights) != set(self.modalities)) or not shares.sum() > 0:
            raise SettingsError(
                f"data.modality_weights is {weights}, but there is {' and '.join(self.modalities)} to train on: "
                "name all of these and no other, and give at least one a weight above 0"
            )
        self.shares = shares / shares.sum()

    def modality_of(self, batch_number: int) -> str:
        """All samples of a batch have this modality."""
        return self.modalities[
            int(stream(self.seed, purpose="modality", step=batch_number).choice(len(self.modalities), p=self.shares))
        ]

    def region_of(self, draw: int, rng: np.random.Generator) -> Region:
        """Return the source of a draw's crop: the first number of its stream."""
        regions = self.of_modality[self.modality_of(draw // self.batch)]
        return regions[int(rng.integers(len(regions)))]

    def __getitem__(self, draw: int) -> tuple[int, Crop]:
        rng = sample_stream(self.seed, draw)
        region = self.region_of(draw, rng)
        volume = self.store[region.volume]
        crop = random_crop(volume, region, self.crop, rng)
        return draw, self.augmentation(crop, rng, lambda before, after: widened(volume, region, crop, before, after))


def collate(samples: Sequence[tuple[int, Crop]], into: tuple[Tensor, Tensor] | None = None) -> Batch:
    """Samples of one modality side by side; `into` is memory for voxels and foreground that
    fits."""
    draws, crops = zip(*samples, strict=True)
    voxels, foreground = into or (None, None)
    return Batch(
        voxels=torch.stack([torch.from_numpy(c.voxels) for c in crops], out=voxels),
        foreground=torch.stack([torch.from_numpy(c.foreground) for c in crops], out=foreground),
        modality=crops[0].modality,
        draws=tuple(draws),
        mask_keys=tuple(f"{c.content}:{d}" for d, c in samples),
        patients=tuple(c.patient for c in crops),
    )


class _Window:
    """Draw numbers of the batches from `start` to `stop`, those of one rank."""

    def __init__(self, start: int, stop: int, batch: int, rank: int, world: int) -> None:
        self.start, self.stop, self.batch, self.rank, self.world = start, stop, batch, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.start, self.stop):
            first = number * self.batch
            yield list(range(first + self.rank, first + self.batch, self.world))

    def __len__(self) -> int:
        return self.stop - self.start


class _Reported(Dataset):
    """The samples of a dataset, or the error as a value: what a loader process raises would arrive
    as the text of a traceback."""

    def __init__(self, dataset: CropDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, draw: int) -> tuple[int, Crop] | StoreError:
        try:
            return self.dataset[draw]
        except StoreError as error:
            return error


class _Collate:
    """Samples to batches; in a loader process into shared memory that is used in turn, because
    fresh pages cost as much as the crops themselves.

    A process is asked for its batch number k + `_AHEAD` while the run copies number k at the
    latest: with one more place than that none is overwritten before it was copied.
    """

    def __init__(self) -> None:
        self.places: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        self.made = 0

    def __call__(self, samples: Sequence[tuple[int, Crop] | StoreError]) -> Batch | StoreError:
        good = [s for s in samples if not isinstance(s, StoreError)]
        if len(good) < len(samples):
            return next(s for s in samples if isinstance(s, StoreError))
        return collate(good, None if get_worker_info() is None else self._place(good))

    def _place(self, samples: Sequence[tuple[int, Crop]]) -> tuple[Tensor, Tensor]:
        crop = samples[0][1]
        shapes = (len(samples), *crop.voxels.shape), (len(samples), *crop.foreground.shape)
        key = (self.made % (_AHEAD + 1), *shapes)
        self.made += 1
        if key not in self.places:
            memory = torch.empty(shapes[0]), torch.empty(shapes[1], dtype=torch.bool)
            self.places[key] = memory[0].share_memory_(), memory[1].share_memory_()
        return self.places[key]


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Processes that are started within never see a signal that asks the run to stop; the run gets
    it afterwards.

    Without this, a signal to the whole group (Ctrl-C, a scheduler) would end the loader before the
    run has saved.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        resource_tracker.ensure_running()  # which lifts the block
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outlive_signals(worker: int) -> None:
    """A loader process goes on for some seconds after a signal: enough for its run to save, and its
    end if the run does not tell it to."""
    for number in _STOPPING:
        signal.signal(number, lambda number, frame: signal.alarm(_GRACE_SECONDS))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


def batches(
    dataset: CropDataset, *, start: int, stop: int, workers: int, rank: int = 0, world: int = 1, pin: bool = False
) -> Generator[Batch, None, None]:
    """Batches number `start` to `stop` - 1, in order.

    Close it where it is not used up: that ends the loader's processes in order.

    Raises:
        StoreError: if a volume cannot be read.
        TrainingStopped: if a loader process died.
    """
    window = _Window(start, stop, dataset.batch, rank, world)
    with warnings.catch_warnings():  # more processes than cores are slower, not wrong
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        loader = DataLoader(
            _Reported(dataset),
            batch_sampler=window,
            collate_fn=_Collate(),
            num_workers=workers,
            pin_memory=pin,
            multiprocessing_context="forkserver" if workers else None,
            persistent_workers=False,
            prefetch_factor=_AHEAD if workers else None,
            worker_init_fn=_outlive_signals,
            generator=torch.Generator(),  # which is not used, but the global one would be drawn from
        )
    mapped: deque[Batch] = deque(
        maxlen=workers * (_AHEAD + 1) or 1
    )  # so that shared memory is not mapped anew for every batch
    with _signals_held_back() if workers else nullcontext():
        made = iter(loader)
    try:
        for draws in window:
            try:
                batch = next(made)
            except (RuntimeError, OSError, EOFError):  # a killed process can show as a reset connection, too
                if not workers:
                    raise
                raise _lost(dataset, draws, made) from None
            if isinstance(batch, StoreError):
                raise batch
            if batch.voxels.is_shared():
                mapped.append(batch)
                batch = batch.copied()
            yield batch
    finally:
        del made  # ends the loader's processes now; left to the garbage collector it can take half a minute


def _lost(dataset: CropDataset, draws: Sequence[int], loader: Any) -> TrainingStopped:
    volumes = {dataset.region_of(draw, sample_stream(dataset.seed, draw)).volume for draw in draws}
    processes = getattr(loader, "_workers", [])
    for process in processes:
        process.join(0.2)  # its end may not have been noticed yet
    pids = ", ".join(str(p.pid) for p in processes if not p.is_alive()) or "unknown"
    return TrainingStopped(
        f"a loader process ({pids}) died while it read volume(s) {', '.join(sorted(volumes))}: it was killed, or memory ran out. "
        "Run the same command again to go on from the last checkpoint; fewer data.workers need less memory",
        ExitCode.FAILED,
    )
