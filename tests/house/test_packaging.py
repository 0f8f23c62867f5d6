"""What a user installs: typed, with its data files, and a bill of materials that names everything."""

import json
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("py.typed", "recipes/head-1mm.toml", "configs/tiny-cpu.toml", "pages/page.css", "report/viewer.js", "report/niivue/LICENSE"):
        assert f"wavespark/{name}" in names
    assert any(n.startswith("wavespark/report/niivue/niivue-") for n in names)
    assert all(n.startswith(("wavespark/", "wavespark-")) for n in names)
    assert not [
        n
        for n in names
        if "test" in n.lower().split("/")[-1] and n.endswith(".py") and "pathtest" not in n and "selftest" not in n
    ]
    assert wheel.stat().st_size < 3_000_000


def test_types_are_published() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert (ROOT / "src/wavespark/py.typed").exists()
    assert "Typing :: Typed" in settings["project"]["classifiers"]


def test_the_bill_of_materials_names_every_requirement() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/sbom.py")], capture_output=True, text=True, check=True, timeout=60
    )
    document = json.loads(done.stdout)
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "wavespark"
    named = {c["name"].lower() for c in document["components"]}
    needed = {line.split(">")[0].strip().lower() for line in requires("wavespark") or () if "extra ==" not in line}
    assert needed <= named
    assert all(len(c["hashes"][0]["content"]) == 64 for c in document["components"])


def test_the_locked_packages_of_the_images_are_those_of_the_constraints() -> None:
    pins = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    pins = {name.replace("_", "-"): version for name, version in pins.items()}
    lines = [line for line in (ROOT / "docker/requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 40
    for line in lines:
        pin, digest = line.split(" --hash=sha256:")
        name, version = pin.lower().replace("_", "-").split("==")
        assert len(digest) == 64
        assert pins.get(name, version) == version, f"{pin}: run tools/lock.py again"


def test_the_images_keep_what_they_promise() -> None:
    for name in ("Dockerfile", "Dockerfile.seed-2025-10"):
        text = (ROOT / "docker" / name).read_text(encoding="utf-8")
        last = [line for line in text.splitlines() if line and not line.startswith("#")][-1]
        assert last.startswith("RUN") and "wavespark doctor" in last, "the doctor is the last build step"
        assert "HEALTHCHECK" in text and "USER wavespark" in text and "ARG BASE=" in text and "FROM ${BASE}" in text
    pins = (ROOT / "docker/constraints-seed-2025-10.txt").read_text(encoding="utf-8")
    from wavespark.doctor.profiles import profile

    for wanted in (w for w in profile("seed-2025-10").packages if w.exact):
        assert f"{wanted.package}=={wanted.exact.split('+')[0]}" in pins
    assert "--require-hashes" in (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    assert json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())["name"] == "wavespark"
