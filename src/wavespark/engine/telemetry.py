"""What a run leaves behind while it goes: metrics.jsonl, validation.jsonl, TensorBoard events, environment.json."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from wavespark import __version__
from wavespark.prepare.publish import write_file, writing

_PACKAGES = ("torch", "numpy", "scipy", "pydantic", "nibabel", "pydicom", "blosc2", "safetensors")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware; nothing that names a person, a host or a path."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {
        "wavespark": __version__,
        "python": platform.python_version(),
        **found,
        "sparse_engine": "torch",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cuda": torch.version.cuda or "none",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


class Telemetry:
    """Writers of a run; made for the step it starts from, so that every step stands in the files exactly once.

    Args:
        run: the run's folder.
        step: the last step that counts; later lines, of steps that will be done again, are cut.
        tensorboard: also write TensorBoard events, where it is installed.
    """

    def __init__(self, run: Path, step: int, tensorboard: bool) -> None:
        self._run = run
        self._files = {path: _cut(path, step) for path in (run / "metrics.jsonl", run / "validation.jsonl")}
        self._board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def metrics(self, line: Mapping[str, Any]) -> None:
        """One training step."""
        self._write(self._run / "metrics.jsonl", "train", line)

    def validation(self, line: Mapping[str, Any]) -> None:
        """One held-out measure."""
        self._write(self._run / "validation.jsonl", "held_out", line)

    def sync(self) -> None:
        """Waits until the disk has every line: a checkpoint must never be newer than the steps that led to it."""
        for path, file in self._files.items():
            with writing(path):
                file.flush()
                os.fsync(file.fileno())

    def close(self) -> None:
        self.sync()
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()

    def _write(self, path: Path, tag: str, line: Mapping[str, Any]) -> None:
        with writing(path):
            self._files[path].write(json.dumps(line, allow_nan=False) + "\n")
            self._files[path].flush()
        if self._board is not None:
            for key, value in line.items():
                if key != "step" and isinstance(value, float | int):
                    self._board.add_scalar(f"{tag}/{key}", value, line["step"])


def _cut(path: Path, step: int) -> Any:
    """The file opened at the end of its last line that counts."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                break  # the line that a kill has cut off
    write_file(path, "".join(kept).encode())
    return path.open("a", encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file."""
    lines = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
    return lines


def write_json(path: Path, document: Any) -> None:
    """Publishes a JSON file."""
    write_file(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
