"""A broken environment is named, with what to type. Each is made here: fake modules, wrong versions, missing codecs, small limits."""

import os
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from wavespark.doctor import codecs, machine, resources
from wavespark.doctor.check import Check
from wavespark.doctor.extensions import extension_checks
from wavespark.doctor.packages import package_checks
from wavespark.doctor.profiles import Profile, Wanted, profile
from wavespark.doctor.sparse_lines import sparse_checks

UNDEFINED = "_C.cpython-311-x86_64-linux-gnu.so: undefined symbol: _ZN3c1017RegisterOperatorsD1Ev"


def of(checks: list[Check], name: str) -> Check:
    return next(c for c in checks if c.name == name)


def packages(*wanted: Wanted) -> list[Check]:
    return package_checks(Profile(name="current", packages=wanted))


def test_torchvision_for_another_torch(fake: Callable[..., Path]) -> None:
    code = "raise RuntimeError('operator torchvision::nms does not exist')"
    fake("torchvision", "0.19.0", code=code, needs="torch (==2.4.0)", so=True)
    line = of(extension_checks(), "extension torchvision")
    assert line.state == "warning"
    assert "built with torch 2.4.0, running " in line.found
    assert "built for another torch" in line.found
    assert line.remedy.startswith("pip uninstall torchvision")
    assert "does not use it" in line.remedy


def test_an_extension_that_loads_but_was_built_for_another_torch(fake: Callable[..., Path]) -> None:
    fake("torch-scatter", "2.1.2+pt24cu121", module="torch_scatter", code="x = 1", needs="torch", so=True)
    line = of(extension_checks(), "extension torch-scatter")
    assert line.state == "warning"
    assert "built with torch 2.4," in line.found
    assert "torch-scatter for torch" in line.remedy


def test_an_extension_for_this_torch_is_fine(fake: Callable[..., Path]) -> None:
    import torch

    fake("MinkowskiEngine", "0.5.4", code="x = 1", built=torch.__version__, so=True)
    assert of(extension_checks(), "extension MinkowskiEngine").state == "works"


def test_minkowski_engine_after_an_upgrade_of_torch(fake: Callable[..., Path]) -> None:
    fake("MinkowskiEngine", "0.5.4", code=f"raise ImportError({UNDEFINED!r})", built="2.4.0+cu121", so=True)
    line = of(extension_checks(), "extension MinkowskiEngine")
    assert line.state == "fails"
    assert "built with torch 2.4.0+cu121, running " in line.found
    assert "minkowski.md" in line.remedy, "plain pip cannot build its sources of 2021"
    engine = of(_engine_lines(), "minkowski: engine")
    assert engine.state == "fails"
    assert engine.component == "sparse engine minkowski"
    assert "keep the engine `torch`" in engine.remedy


@pytest.mark.skipif("spconv" in metadata.packages_distributions(), reason="spconv is installed")
def test_an_engine_is_named_by_the_package_that_brings_it(fake: Callable[..., Path]) -> None:
    fake("spconv-cu120", "2.3.6", module="spconv", code="raise RuntimeError('no')")
    line = of(_engine_lines(), "spconv: engine")
    assert line.found.startswith("spconv-cu120 2.3.6 cannot be used")
    assert "pip uninstall spconv-cu120." in line.remedy


def _engine_lines() -> list[Check]:
    from wavespark.doctor import sparse_lines

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_lines, "sparse_suite", lambda names: [])
        patch.setattr(sparse_lines, "engines", lambda: ("torch",))
        return list(sparse_checks())


def test_an_old_wheel_beside_numpy_2(fake: Callable[..., Path]) -> None:
    text = "numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88"
    fake("nrrd", code=f"raise ValueError({text!r})")
    line = of(packages(Wanted(package="pynrrd")), "pynrrd")
    assert line.state == "fails"
    assert "built for numpy 1 meets numpy 2" in line.found
    assert "'numpy<2'" in line.remedy


def test_two_openmp_runtimes_that_end_the_process(fake: Callable[..., Path]) -> None:
    said = "OMP: Error #15: Initializing libiomp5.so, but found libomp.so already initialized."
    code = f"import os, sys; sys.stderr.write({said!r}); sys.stderr.flush(); os.abort()"
    fake("nibabel", "5.2.0", code=code)
    fake("safetensors", "0.5.0", code="x = 1")
    lines = packages(Wanted(package="nibabel"), Wanted(package="safetensors"))
    assert of(lines, "nibabel").state == "fails"
    assert "two OpenMP runtimes" in of(lines, "nibabel").found
    assert "MKL_THREADING_LAYER=GNU" in of(lines, "nibabel").remedy
    assert of(lines, "safetensors").state == "works", "a crash does not take the next package with it"


def test_a_package_that_is_missing_and_one_that_is_too_old(fake: Callable[..., Path]) -> None:
    fake("scipy", "1.9.0", code="x = 1")
    lines = packages(Wanted(package="no-such-package", least="2"), Wanted(package="scipy", least="1.11"))
    assert of(lines, "no-such-package").remedy == "pip install 'no-such-package>=2'"
    assert of(lines, "scipy").found == "1.9.0, too old"
    assert of(lines, "scipy").remedy == "pip install 'scipy>=1.11'"
    assert not any(c.ok for c in lines)


@pytest.mark.parametrize(
    ("name", "old", "safe"), [("torch", "2.4.0", "2.10"), ("pydicom", "3.0.1", "3.0.2"), ("monai", "1.5.1", "1.6.1")]
)
def test_a_version_with_a_known_vulnerability(fake: Callable[..., Path], name: str, old: str, safe: str) -> None:
    fake(name, old, code="x = 1")
    line = of(packages(Wanted(package=name)), name)
    assert line.state == "fails"
    assert "vulnerability" in line.found
    assert line.remedy == f"pip install '{name}>={safe}'"
    pinned = of(packages(Wanted(package=name, exact=old, unsafe_is_warning=True)), name)
    assert pinned.state == "warning", "the seed's pins are what was asked for"
    assert "trusted files only" in pinned.remedy


def test_the_build_of_torch_is_what_torch_says_and_not_what_its_wheel_is_called(fake: Callable[..., Path]) -> None:
    module = fake("torch", "2.4.0", code="x = 1")
    (module / "torch" / "version.py").write_text("__version__ = '2.4.0+cu121'\ndebug = False\n")
    pin = next(w for w in profile("seed-2025-10").packages if w.package == "torch")
    assert of(packages(pin), "torch").found.startswith("2.4.0+cu121")
    assert of(packages(pin), "torch").state == "warning", "it is as old as the seed, and known to be vulnerable"
    (module / "torch" / "version.py").write_text("__version__ = '2.4.0+cu118'\n")
    assert of(packages(pin), "torch").state == "fails"


def test_the_seed_profile_names_every_pin_that_is_not_met(fake: Callable[..., Path]) -> None:
    fake("numpy", "1.26.4", code="x = 1")
    fake("torch", "2.4.0+cu118", code="x = 1")
    pins = tuple(w for w in profile("seed-2025-10").packages if w.exact)
    assert {w.package: w.exact for w in pins} == {
        "torch": "2.4.0+cu121",
        "numpy": "1.26.4",
        "MinkowskiEngine": "0.5.4",
        "ptwt": "1.0.1",
        "monai": "1.5.1",
    }
    lines = packages(*pins)
    assert of(lines, "numpy").state == "works"
    assert of(lines, "torch").state == "fails"
    assert of(lines, "torch").remedy == "pip install 'torch==2.4.0'"
    assert "minkowski.md" in of(lines, "MinkowskiEngine").remedy
    toolkit = machine.machine_checks("12.1.1")[0]
    assert toolkit.state == "fails"
    assert toolkit.expected == "12.1.1"
    assert "CUDA 12.1" in toolkit.remedy


def test_a_missing_codec() -> None:
    block = (
        "import sys\nfor m in ('gdcm', 'PIL', 'openjpeg', 'jpeg_ls', 'rle', 'pylibjpeg'):\n    sys.modules[m] = None\n"
    )
    show = "from wavespark.doctor.codecs import codec_checks\nfor c in codec_checks(): print(c.name, '|', c.state, '|', c.remedy)"
    done = subprocess.run([sys.executable, "-c", block + show], capture_output=True, text=True, check=True, timeout=120)
    told = {
        name.strip(): (state.strip(), remedy.strip())
        for name, state, remedy in (line.split("|") for line in done.stdout.splitlines())
    }
    assert told["DICOM RLE"][0] == "works", "pydicom brings that one"
    for name in ("DICOM JPEG", "DICOM JPEG lossless", "DICOM JPEG-LS", "DICOM JPEG 2000"):
        assert told[name] == ("warning", "pip install 'wavespark[dicom]'")


def test_a_codec_that_decodes_wrongly_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(c.state == "works" for c in codecs.codec_checks())
    decode = codecs._decoded
    monkeypatch.setattr(codecs, "_decoded", lambda codec: decode(codec)[::-1])
    assert all(c.state == "fails" and "wrong by" in c.found for c in codecs.codec_checks())

    def refuse(codec: codecs.Codec) -> np.ndarray:
        raise ImportError("A module that was compiled using NumPy 1.x cannot be run in NumPy 2.4.6")

    monkeypatch.setattr(codecs, "_decoded", refuse)
    assert all("numpy 1 meets numpy 2" in c.found for c in codecs.codec_checks())


def test_a_small_shared_memory_and_few_open_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(64 * 2**20, 0, 64 * 2**20))
    memory = resources._shared_memory(tmp_path)[0]
    assert memory.state == "warning"
    assert "--shm-size" in memory.remedy
    assert resources._disk().state == "fails"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert {c.name: c.remedy for c in resources._limits()} == {
        "open files": "ulimit -n 4096",
        "processes and threads": "ulimit -u 4096",
    }


def test_a_graphics_card_that_this_torch_cannot_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 535.104.05'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert "CPU build" in machine._without_card("").found
    assert "CUDA build of torch" in machine._without_card("").remedy
    assert "driver" in machine._without_card("12.6").remedy
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine._without_card("12.6").remedy == "unset CUDA_VISIBLE_DEVICES"


def test_a_forked_worker_that_hangs_or_computes_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resources._fork()[0].state == "works"
    monkeypatch.setattr(resources, "_FORK", "import sys; sys.exit(2)")
    assert resources._fork()[0].found == "hangs"
    assert "data.workers=0" in resources._fork()[0].remedy


def test_the_doctor_still_speaks_where_torch_is_missing() -> None:
    block = "import sys; sys.modules['torch'] = None; from wavespark.cli.main import run; run(['doctor'])"
    site = Path(__file__).parent / "no_torch"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "torch" in done.stdout
    assert "does not import" in done.stdout
    assert "self-tests are left out" in done.stdout
