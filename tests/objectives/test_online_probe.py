"""Which volumes a run probes, and for what."""

from dataclasses import dataclass, field

import pytest

from wavespark.config import load_pretraining
from wavespark.engine.watching.online_probe import OnlineProbe
from wavespark.errors import SettingsError


@dataclass
class Volume:
    id: str
    patient: str
    contrast: str | None = "T1"
    modality: str = "MR"
    targets: dict = field(default_factory=dict)


def chosen(volumes, *words):
    return OnlineProbe.of(volumes, load_pretraining("tiny-cpu", words)).volumes


def test_volumes_are_spread_evenly_over_classes_of_at_least_two_patients():
    volumes = [Volume(f"t1-{i}", f"p{i}") for i in range(20)] + [Volume(f"t2-{i}", f"p{i}", "T2") for i in range(3)]
    volumes += [
        Volume("one", "q", "MRA"),
        Volume("twin", "q", "MRA"),
        *(Volume(f"n{i}", f"n{i}", None) for i in range(5)),
    ]
    found = chosen(volumes, "health.probe_volumes=10")
    assert len(found) == len(set(found)) == 10
    assert sum(name.startswith("t2") for name in found) == 3 and sum(name.startswith("t1") for name in found) == 7


def test_one_class_alone_is_not_probed():
    assert chosen([Volume(f"{i}", f"p{i}") for i in range(5)]) == ()
    assert chosen([Volume(f"{i}", f"p{i}") for i in range(5)], "health.probe=''") == ()


def test_any_label_of_the_manifest_can_be_probed():
    volumes = [Volume(f"{i}", f"p{i}", targets={"Aneurysm Present": i % 2} if i else {}) for i in range(7)]
    assert sorted(chosen(volumes, "health.probe='Aneurysm Present'")) == ["1", "2", "3", "4", "5", "6"]
    with pytest.raises(SettingsError, match="Aneurysm Present, contrast, modality"):
        chosen(volumes, "health.probe='age'")
