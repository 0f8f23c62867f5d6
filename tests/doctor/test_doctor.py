"""The doctor says what works, and fails where something is broken."""

import json
import subprocess
import sys

import pytest
import torch

from wavespark.doctor import checks, examine, selftest


def test_a_working_machine_passes_and_says_so_in_one_json_document() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wavespark", "doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    document = json.loads(done.stdout)
    assert done.returncode == 0, document
    assert document["ok"] is True
    assert {c["name"] for c in document["self_tests"]} == {
        "hidden voxels never leak",
        "mask counts are exact",
        "a small model learns",
    }
    assert sum(c["name"].startswith("torch: ") for c in document["sparse"]) >= 7


def test_a_missing_an_unimportable_and_an_unsafe_package_are_named_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        checks, "IMPORTS", {"no-such-package": "no_such_package", "numpy": "numpy_that_is_broken", "torch": "torch"}
    )
    monkeypatch.setattr(checks, "MINIMUM", {"torch": "99"})
    found = {c.name: c for c in examine()}
    assert not found["no-such-package"].ok
    assert found["no-such-package"].remedy == "pip install no-such-package"
    assert not found["numpy"].ok
    assert "ModuleNotFoundError" in found["numpy"].found
    assert not found["torch"].ok
    assert "vulnerability" in found["torch"].found
    assert "99" in found["torch"].remedy


def test_a_leak_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaky(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = selftest.create_model("waveformer_tiny", in_channels=1)

        def forward(self, crop: torch.Tensor, visible: torch.Tensor) -> list:
            return self.inner(crop + crop.nan_to_num(0, 0, 0).mean(), visible)

    original = selftest.create_model
    assert selftest._leak()[2]

    def leaky(name: str, **settings: object) -> torch.nn.Module:
        monkeypatch.setattr(selftest, "create_model", original)
        return Leaky()

    monkeypatch.setattr(selftest, "create_model", leaky)
    assert not selftest._leak()[2]


def test_a_model_that_cannot_learn_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, closure=None: None)
    assert not selftest._learning()[2]
