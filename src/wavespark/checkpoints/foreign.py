"""Weights that another program saved with `torch.save`: read by a child process with little memory,
tensors only, and written as safetensors.

A .pt file is a pickle, which can run code, and an archive, which can unpack to more than the
memory. So it is opened with `weights_only=True` (nothing but tensors and plain containers), in a
process whose memory and time are limited, and nothing but numbers comes back.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from wavespark.errors import CheckpointError

LARGEST_BYTES = 16 * 2**30
CPU_SECONDS = 50
"""CPU seconds of the reading process; `WALL_SECONDS` is generous for busy machines."""
WALL_SECONDS = 600
_OWN_BYTES = 512 * 2**20
_DEPTH = 8
_WRAPPERS = ("module.", "_orig_mod.", "network.", "model.", "student.", "backbone.")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Foreign:
    """Weights of a file that another program wrote."""

    weights: Mapping[str, Tensor]
    found_under: str
    """Key of the weights in the file, for example `state_dict`."""
    left: tuple[str, ...]
    """Other entries that hold tensors, with how many."""


def read_foreign(file: Path, scratch: Path) -> Foreign:
    """Read the weights of a .pt, .pth, .ckpt or .safetensors file.

    Args:
        file: what to read; it may come from anyone.
        scratch: an empty, writable folder.

    Raises:
        CheckpointError: if it is no such file, holds anything but tensors and plain containers, or
            wants too much memory or time.
    """
    try:
        size = file.stat().st_size
    except OSError:
        raise CheckpointError(f"{file} is not there or cannot be read") from None
    if not file.is_file() or size > LARGEST_BYTES:
        raise CheckpointError(f"{file} is no file of at most {LARGEST_BYTES // 2**30} GiB")
    target = scratch / "weights.safetensors"
    code = "from wavespark.checkpoints.foreign import child; child()"
    told = json.dumps({"file": str(file.absolute()), "target": str(target), "bytes": size})
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=told.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WALL_SECONDS,
            check=False,
        )
        found: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        raise CheckpointError(
            f"{file} took too much memory or time to read ({size / 2**20:.1f} MiB on the disk): it is damaged or made to do harm"
        ) from None
    if "refused" in found:
        raise CheckpointError(f"{file}: {found['refused']}")
    return Foreign(weights=load_file(target), found_under=found["under"], left=tuple(found["left"]))


def child() -> None:
    """Run the reading process: JSON in, safetensors and JSON out."""
    told = json.load(sys.stdin)
    allowed = _used() + _OWN_BYTES + 4 * int(told["bytes"])
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    seconds = CPU_SECONDS + int(told["bytes"]) // 2**26
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    try:
        answer = _read(told["file"], told["target"])
    except MemoryError:
        answer = {"refused": "it wants more memory than weights of its size need"}
    except Exception as error:  # whatever a hostile file makes torch raise; its text may quote the file
        answer = {"refused": _sentence(error)}
    json.dump(answer, sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # without the destructors of what was read


def _read(file: str, target: str) -> dict[str, Any]:
    if file.endswith(".safetensors"):
        with safe_open(file, "pt") as tensors:
            content: Any = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    else:
        content = torch.load(file, map_location="cpu", weights_only=True)
    groups = list(_groups(content, "", 0))
    if not groups:
        return {"refused": "it holds no weights by name"}
    under, chosen = max(groups, key=lambda g: sum(t.numel() for t in g[1].values()))
    weights = {name: t.detach().contiguous().clone() for name, t in _unwrapped(chosen).items()}
    save_file(weights, target)
    return {"under": under, "left": [f"{u or 'top'} ({len(g)})" for u, g in groups if u != under]}


def _groups(value: Any, under: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping that holds tensors by name, and where."""
    if not isinstance(value, Mapping) or depth > _DEPTH:
        return
    own = {k: t for k, t in value.items() if isinstance(k, str) and isinstance(t, Tensor) and t.layout == torch.strided}
    if own:
        yield under, own
    for key, inner in value.items():
        if isinstance(key, str) and "optim" not in key:
            yield from _groups(inner, f"{under}.{key}".strip("."), depth + 1)


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes of wrappers (DDP, torch.compile, a training class) that all names
    share."""
    while weights:
        prefix = next((p for p in _WRAPPERS if all(k.startswith(p) and len(k) > len(p) for k in weights)), None)
        if prefix is None:
            return weights
        weights = {k.removeprefix(prefix): t for k, t in weights.items()}
    return weights


def _sentence(error: Exception) -> str:
    if "weights_only" in str(error) or type(error).__name__ == "UnpicklingError":
        return (
            "it holds Python objects beside tensors, which could run code, so it is not read. "
            "Save its state_dict() alone with the program that made it, and import that"
        )
    if isinstance(error, SafetensorError):
        return "it is no valid safetensors file"
    if "memory" in str(error) or "allocate" in str(error):
        return "it wants more memory than weights of its size need"
    return f"it cannot be read as weights ({type(error).__name__})"


def _used() -> int:
    """Bytes of address space of this process."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 4 * 2**30
