"""The device and the CPU threads of a run; the only place that sets the process-wide thread
count."""

import os

import torch

from wavespark.errors import SettingsError


def choose_device(requested: str, local_rank: int = 0) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`; with several accelerators, the one of this
    process.

    Args:
        requested: the setting `run.device`; `auto` takes an accelerator if there is one.
        local_rank: number of this process on its machine.

    Raises:
        SettingsError: if there is no such device.
    """
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise SettingsError(
            "run.device=cuda, but torch sees no CUDA device: `wavespark doctor` says why; use run.device=cpu or auto"
        )
    if requested == "cpu" or not available:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise SettingsError(
            f"process {local_rank} of this machine has no CUDA device: there are {torch.cuda.device_count()}. "
            "Start fewer processes (torchrun --nproc-per-node)"
        )
    return torch.device("cuda", local_rank)


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(requested: int, processes: int = 1) -> int:
    """Set the CPU threads of torch for this whole process; call it once, where a command or run
    begins.

    Args:
        requested: the setting `run.threads`; 0 = all cores, divided among `processes`.
        processes: training processes on this machine.

    Returns:
        The number of threads.
    """
    threads = requested or max(1, cores() // processes)
    torch.set_num_threads(threads)
    return threads
