"""Files that a run writes as it goes: metrics.jsonl, validation.jsonl, TensorBoard events,
environment.json."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from wavespark import __version__
from wavespark.config.pretrain import RunSettings
from wavespark.engine.watching.boards import open_boards
from wavespark.files import write_file, writing

_PACKAGES = ("torch", "numpy", "scipy", "pydantic", "nibabel", "pydicom", "blosc2", "safetensors")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware; nothing that names a person, a host or a path."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "wavespark": __version__,
        "python": platform.python_version(),
        **versions,
        "sparse_engine": "torch",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cuda": torch.version.cuda or "none",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


class Telemetry:
    """Writers of a run; made for the step it starts from, so that every step stands in the files
    exactly once.

    Args:
        run: the run's folder.
        step: the last step that counts; later lines, of steps that will be done again, are cut.
        settings: which boards to write, beside the files.
        writes: False in all processes but the first: they write nothing.
    """

    def __init__(self, run: Path, step: int, settings: RunSettings, writes: bool = True) -> None:
        self._run = run
        names = ("metrics", "validation") if writes else ()
        self._files = {name: _cut(run / f"{name}.jsonl", step) for name in names}
        self._boards = open_boards(run, step, settings) if writes else []

    def metrics(self, line: Mapping[str, Any]) -> None:
        """One training step."""
        self._write("metrics", "train", line)

    def validation(self, line: Mapping[str, Any]) -> None:
        """One held-out measure."""
        self._write("validation", "held_out", line)

    def examples(self, folder: Path, step: int) -> None:
        """The pictures of a held-out measure, for boards that show pictures."""
        for board in self._boards:
            board.examples(folder / f"step_{step:08d}.safetensors", step)

    def sync(self) -> None:
        """Waits until the disk has every line: a checkpoint must never be newer than the steps that
        led to it."""
        for name, file in self._files.items():
            with writing(self._run / f"{name}.jsonl"):
                file.flush()
                os.fsync(file.fileno())

    def close(self) -> None:
        self.sync()
        for file in self._files.values():
            file.close()
        for board in self._boards:
            board.close()

    def _write(self, name: str, tag: str, line: Mapping[str, Any]) -> None:
        if name not in self._files:
            return
        with writing(self._run / f"{name}.jsonl"):
            self._files[name].write(json.dumps(line, allow_nan=False) + "\n")
            self._files[name].flush()
        for board in self._boards:
            board.scalars({f"{tag}/{key}": value for key, value in _numbers("", line)}, line["step"])


def _numbers(prefix: str, line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a line, also those within its groups."""
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from _numbers(f"{prefix}{key}/", value)
        elif isinstance(value, float | int) and key != "step":
            yield prefix + key, float(value)


def _cut(path: Path, step: int) -> Any:
    """The file opened at the end of its last line that counts."""
    lines = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    lines.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                break  # the line that a kill has cut off
    write_file(path, "".join(lines).encode())
    return path.open("a", encoding="utf-8")


def write_json(path: Path, document: Any) -> None:
    """Publishes a JSON file."""
    write_file(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
