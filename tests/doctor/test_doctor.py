"""The doctor says what works, and fails where something is broken."""

import json
import subprocess
import sys

import pytest
import torch

from wavespark.doctor import selftest, summary_lines
from wavespark.doctor.check import Check, version_number
from wavespark.doctor.messages import recognise
from wavespark.doctor.profiles import profile, requirements
from wavespark.doctor.summary import NAMES, components
from wavespark.errors import SettingsError


def doctor(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wavespark", "doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_working_machine_passes_and_says_so_in_one_json_document() -> None:
    done = doctor("--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0, document
    assert document["ok"] is True
    assert document["profile"] == "current"
    assert {c["name"] for c in document["self_tests"]} >= {
        "hidden voxels never leak",
        "mask counts are exact",
        "mask table of the 2025-10 system",
        "a small model learns",
        "voxels survive preparation",
        "an export is the same encoder",
    }
    assert sum(c["name"].startswith("torch: ") for c in document["sparse"]) >= 7
    assert list(document["components"]) == list(NAMES)
    assert document["components"]["training"] == "works"
    assert {c["name"] for c in document["environment"]} >= {
        "python",
        "torch",
        "pydicom",
        "accelerator",
        "a forked worker",
        "DICOM JPEG 2000",
    }


MESSAGES = [
    (
        "RuntimeError: operator torchvision::nms does not exist",
        "torchvision was built for another torch",
        "pip uninstall torchvision",
    ),
    (
        "ImportError: x.so: undefined symbol: _ZN2at4_ops5zeros4callEN3c108ArrayRef",
        "built for another torch",
        "--no-build-isolation",
    ),
    (
        'File "site-packages/MinkowskiEngine/MinkowskiNormalization.py", line 57, in forward\n output = self.bn(input.F)\n'
        "RuntimeError: CUDA error: invalid configuration argument",
        "MinkowskiEngine's batch norm",
        "rebuild it against this torch",
    ),
    (
        "A module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.1.0 as it may crash",
        "numpy 1 meets numpy 2",
        "'numpy<2'",
    ),
    ("AttributeError: _ARRAY_API not found", "numpy 1 meets numpy 2", "'numpy<2'"),
    (
        "OMP: Error #15: Initializing libomp.dylib, but found libiomp5.dylib already initialized.",
        "two OpenMP runtimes",
        "MKL_THREADING_LAYER",
    ),
    (
        "OpenBLAS blas_thread_init: pthread_create failed for thread 5 of 8: Resource temporarily unavailable",
        "no more threads",
        "ulimit -u",
    ),
    (
        "ImportError: cannot import name 'Sequence' from 'collections' (/usr/lib/python3.11/collections/__init__.py)",
        "collections.abc",
        "minkowski.md",
    ),
    (
        "OSError: libcudart.so.11.0: cannot open shared object file: No such file or directory",
        "CUDA that is not installed",
        "CUDA of this torch",
    ),
    (
        "CUDA error: no kernel image is available for execution on the device",
        "not built for this GPU",
        "compute capability",
    ),
    (
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory",
        "shared memory",
        "shm",
    ),
    ("The NVIDIA driver on your system is too old (found version 11040)", "driver is older", "update the driver"),
    ("ModuleNotFoundError: No module named 'ninja.ninja_syntax'", "needs ninja", "pip install ninja"),
    ("OSError: [Errno 24] Too many open files", "too many open files", "ulimit -n"),
]


@pytest.mark.parametrize(("message", "cause", "remedy"), MESSAGES, ids=[m[1] for m in MESSAGES])
def test_a_message_that_people_meet_is_recognised(message: str, cause: str, remedy: str) -> None:
    meaning = recognise(f"Traceback (most recent call last):\n{message}\n")
    assert meaning is not None
    assert cause in meaning.cause
    assert remedy in meaning.remedy


@pytest.mark.parametrize(
    "message", ["", "ValueError: could not broadcast", "RuntimeError: CUDA error: unspecified launch failure"]
)
def test_a_message_that_is_not_known_is_not_guessed(message: str) -> None:
    assert recognise(message) is None


def test_a_message_can_be_asked_about_on_the_command_line() -> None:
    done = doctor("--message", "operator torchvision::nms does not exist")
    assert done.returncode == 0
    assert done.stdout.startswith("torchvision was built for another torch.\nWhat to do: pip uninstall torchvision")
    assert doctor("--message", "no such thing").returncode == 1


def test_profiles_are_closed_and_follow_the_package_itself() -> None:
    with pytest.raises(SettingsError, match="current and seed-2025-10"):
        profile("seed")
    own = {w.package: w for w in requirements()}
    assert own["pydicom"].least == "3.0.2"
    assert own["ptwt"].extra == "wavelets"
    assert not own["torch"].extra
    assert own["torch"].expected == ">= 2.10", "safe versions are what is expected"
    assert "pytest" not in own


def test_versions_compare_as_numbers() -> None:
    assert version_number("2.10.0+cu126") > version_number("2.9.1")
    assert version_number("2.4.0rc1") == (2, 4, 0)
    assert version_number("1.26") < version_number("1.26.4")


def test_a_component_is_as_bad_as_its_worst_check() -> None:
    def line(component: str, **more: bool) -> Check:
        return Check(name="n", expected="e", found="f", component=component, **{"ok": True, **more})

    states = components(
        [
            line("masks"),
            line("masks", ok=False),
            line("losses", warning=True),
            line("export"),
            line("SparK", absent=True),
        ]
    )
    assert (states["masks"], states["losses"], states["export"]) == ("fails", "warning", "works")
    assert states["sparse engine spconv"] == states["SparK"] == "not installed"
    assert "masks                    FAILS" in summary_lines(states)


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
    times = iter(range(0, 10_000, 3))
    monkeypatch.setattr(selftest.time, "perf_counter", lambda: next(times))
    assert not selftest._learning()[2]


def test_a_decoder_that_gives_every_cell_the_same_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert selftest._distinct()[2]
    step = selftest._step

    def same(*words: object) -> object:
        from dataclasses import replace

        result = step(*words)
        return replace(result, prediction=result.prediction[:1].expand_as(result.prediction))

    monkeypatch.setattr(selftest, "_step", same)
    assert not selftest._distinct()[2]


def test_a_store_that_changes_voxels_and_an_export_that_changes_weights_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from wavespark.doctor import pathtest

    load, opened = pathtest.load_encoder, pathtest.open_store

    class Off:
        def __init__(self, store: object) -> None:
            self.store = store

        def __len__(self) -> int:
            return 1

        def __getitem__(self, k: int) -> object:
            return self

        def read(self) -> object:
            return self.store[0].read() + 1

    monkeypatch.setattr(pathtest, "open_store", lambda path: Off(opened(path)))
    assert not pathtest.data_path()[2]

    def nudged(path: object) -> torch.nn.Module:
        encoder = load(path)
        next(encoder.parameters()).data += 1e-3
        return encoder

    monkeypatch.setattr(pathtest, "load_encoder", nudged)
    assert not pathtest.export()[2]
