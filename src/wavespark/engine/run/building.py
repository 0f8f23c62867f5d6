"""Model, split and description of the data for a store."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from wavespark.config import PretrainSettings
from wavespark.engine.machine.memory import is_out_of_memory
from wavespark.errors import ExitCode, SettingsError, StoreError, TrainingStopped
from wavespark.models import SparK
from wavespark.prepare import Store
from wavespark.sampling import CropDataset, Split, split_store


def stems_of(store: Store) -> dict[str, int]:
    """Channels of each modality in the store.

    Raises:
        StoreError: if it is empty or a modality comes with different numbers of channels.
    """
    kinds = Counter((v.modality, v.channels) for v in store)
    if not kinds:
        raise StoreError(f"{store.path} holds no volume: look at its refusals with `wavespark inspect {store.path}`")
    stems = dict(sorted(kinds))
    if len(stems) != len(kinds):
        raise StoreError(
            f"{store.path} holds volumes of one modality with different numbers of channels: {sorted(kinds)}"
        )
    return stems


def contents_of(store: Store) -> str:
    """A hash of what the volumes of the store are, whatever their ids."""
    return hashlib.sha256("".join(sorted(v.content for v in store)).encode()).hexdigest()


def build_model(settings: PretrainSettings, stems: dict[str, int]) -> SparK:
    """A fresh model; its weights depend on the seed only.

    Raises:
        TrainingStopped: with exit code 5, if there is no memory for the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.run.seed)
        try:
            return SparK(settings.encoder(stems), settings.decoder.for_model())
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingStopped(
                f"out of memory: the weights of {settings.model.name} and of its {settings.decoder.kind} decoder alone are too many; use a "
                "smaller model.name or decoder",
                ExitCode.OUT_OF_MEMORY,
            ) from None


def training_crops(settings: PretrainSettings, store: Store, split: Split) -> CropDataset:
    """The endless sequence of training crops."""
    return CropDataset(
        store,
        split.training,
        crop=settings.box,
        batch=settings.data.batch,
        seed=settings.run.seed,
        augmentation=settings.data.augmentation,
        weights=settings.data.modality_weights,
    )


SPLIT = "split.json"
"""File of a run: content hash of each volume -> whether it is held out."""


def choose_split(settings: PretrainSettings, store: Store) -> Split:
    """Split the store into training and held-out regions.

    Raises:
        StoreError: if nothing is left for one of them.
        SettingsError: if `data.split_from` names a run without a split.
    """
    known: dict[str, bool] | None = None
    if settings.data.split_from:
        try:
            text = (Path(settings.data.split_from) / SPLIT).read_text(encoding="utf-8")
            known = {str(content): bool(out) for content, out in json.loads(text).items()}
        except (OSError, ValueError, AttributeError, RecursionError):
            raise SettingsError(f"data.split_from={settings.data.split_from} is no run with a {SPLIT}") from None
    data = settings.data
    return split_store(store, settings.box, data.held_out_fraction, settings.run.seed, known)


def describe_data(store: Store, split: Split) -> dict[str, Any]:
    """RUN/data.json: what is trained on, what is held out, what was refused."""
    volumes = list(store)
    return {
        "volumes": len(volumes) + len(store.refused),
        "used": len(volumes),
        "by_modality": dict(sorted(Counter(v.modality for v in volumes).items())),
        "by_contrast": dict(sorted(Counter(v.contrast or "unknown" for v in volumes).items())),
        "training": [r.volume for r in split.training],
        "held_out": {
            "kind": split.kind,
            "description": split.description,
            "volumes": [r.volume for r in split.held_out],
        },
        "refused": [asdict(r) for r in store.refused],
        "store_fingerprint": store.recipe.fingerprint,
        "recipe": json.loads(json.dumps(store.recipe.settings)),
    }
