"""Online probe of a label of the manifest from a run's features: a few fixed crops, all cells
visible, probes split by patient."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wavespark.config import PretrainSettings
from wavespark.engine.learning.step import target_cells
from wavespark.errors import SettingsError
from wavespark.metrics.probes import probe
from wavespark.models import SparK
from wavespark.objectives import places_of
from wavespark.prepare import Store, StoredVolume
from wavespark.randomness import stream
from wavespark.sampling import Region, collate
from wavespark.sampling.crops import random_crop
from wavespark.shapes import Triple

LABELS = ("contrast", "modality")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OnlineProbe:
    """Volumes of the probe and the label to predict."""

    store: Store
    label: str
    volumes: tuple[str, ...]
    """Ids; empty where the store has fewer than two classes of two patients."""
    crop: Triple
    seed: int

    @classmethod
    def of(cls, store: Store, settings: PretrainSettings) -> "OnlineProbe":
        """The volumes, spread evenly over the classes that at least two patients have.

        Raises:
            SettingsError: if there is no such label.
        """
        label, seed = settings.health.probe, settings.run.seed
        by_class: dict[str, list[StoredVolume]] = {}
        names = set(LABELS)
        for volume in store if label else ():
            names |= set(volume.targets)
            value = label_of(volume, label)
            if value is not None:
                by_class.setdefault(value, []).append(volume)
        if label and label not in names:
            known = ", ".join(sorted(names))
            raise SettingsError(
                f"health.probe={label!r} is no label of the manifest: use one of {known}, or '' for none"
            )
        classes = {c: vs for c, vs in sorted(by_class.items()) if len({v.patient for v in vs}) > 1}
        rng = stream(seed, purpose="probe volumes")
        queues = [[vs[i].id for i in rng.permutation(len(vs))] for vs in classes.values()]
        dealt = [queue[k] for k in range(max(map(len, queues), default=0)) for queue in queues if k < len(queue)]
        chosen = dealt[: settings.health.probe_volumes] if len(classes) > 1 else []
        return cls(store=store, label=label, volumes=tuple(chosen), crop=settings.data.crop, seed=seed)

    @torch.no_grad()
    def measure(self, model: SparK) -> dict[str, Any] | None:
        """Balanced accuracies with 95 % intervals over patients; None where there is nothing to
        probe."""
        volumes = [self.store[name] for name in self.volumes]
        labels = [str(label_of(v, self.label)) for v in volumes]
        if len(set(labels)) < 2:
            return None
        was_training = model.training
        model.eval()
        features = np.stack([self._features(model, v) for v in volumes])
        model.train(was_training)
        scores: dict[str, Any] = {"label": self.label, "volumes": len(volumes), "chance": 1 / len(set(labels))}
        for name in ("knn", "linear"):
            accuracy = probe(features, labels, [v.patient for v in volumes], name, seed=self.seed, draws=300).accuracy
            scores[name] = {k: accuracy.to_json()[k] for k in ("value", "low", "high")}
        return scores

    def _features(self, model: SparK, volume: StoredVolume) -> np.ndarray:
        """The mean of the coarsest features over the cells that are at least half head."""
        rng = stream(self.seed, purpose="probe crop", volume=volume.content)
        whole = Region(volume=volume.id, start=(0, 0, 0), size=volume.size)
        batch = collate([(0, random_crop(volume, whole, self.crop, rng, tries=8))])
        device = next(model.parameters()).device
        head = target_cells(batch.foreground, model.encoder.cell)
        visible = torch.ones_like(head)
        level = model.encoder(batch.voxels.to(device), visible, modality=batch.modality)[-1]
        cells = places_of(level).features.cpu()
        chosen = head.flatten() if head.any() else visible.flatten()
        return np.asarray(cells[chosen].double().mean(0))


def label_of(volume: StoredVolume, label: str) -> str | None:
    """The value of a label of the manifest (its contrast or modality, or one of `volume.targets`);
    None where the volume has none."""
    if label in LABELS:
        value = getattr(volume, label)
        return None if value is None else str(value)
    target = volume.targets.get(label)
    return None if target is None else f"{target:g}"
