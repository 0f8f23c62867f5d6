"""Out of memory as a sentence: what was asked for, what was used, and the next smaller setting."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wavespark.config import PretrainSettings
from wavespark.errors import ExitCode, TrainingStopped
from wavespark.shapes import Triple

_WORDS = (
    "not enough memory",
    "DefaultCPUAllocator",
    "can't allocate memory",
    "out of memory",
    "Storage size calculation overflowed",
)


@contextmanager
def explained(settings: PretrainSettings, device: torch.device, cell: Triple, world: int = 1) -> Iterator[None]:
    """Turns every way in which memory runs out into one error.

    Raises:
        TrainingStopped: with exit code 5.
    """
    try:
        yield
    except (
        MemoryError,
        RuntimeError,
    ) as error:  # torch.OutOfMemoryError is a RuntimeError; on a CPU it comes as a plain one
        if not is_out_of_memory(error):
            raise
        crop = " x ".join(map(str, settings.data.crop))
        raise TrainingStopped(
            f"out of memory on {device.type}: {settings.model.name}, {settings.data.batch // world // settings.run.accumulate} crop(s) of {crop} "
            f"at once used up to {peak_bytes(device) / 2**30:.1f} GiB. {smaller(settings, cell, world)}",
            ExitCode.OUT_OF_MEMORY,
        ) from None


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of torch or Python means that memory ran out."""
    return isinstance(error, MemoryError) or any(word in str(error) for word in _WORDS)


def peak_bytes(device: torch.device) -> int:
    """The most memory so far: of the accelerator, or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def smaller(settings: PretrainSettings, cell: Triple, world: int = 1) -> str:
    """The next setting that needs less memory, as words to add to the command line."""
    run, data = settings.run, settings.data
    own = data.batch // world
    more = next((k for k in range(run.accumulate + 1, own + 1) if own % k == 0), None)
    if more:
        return f"Add run.accumulate={more}: the same batch in {more} parts, and the run goes on where it was"
    if not run.gradient_checkpointing:
        return "Add run.gradient_checkpointing=true: slower, and the run goes on where it was"
    largest = max(range(3), key=lambda axis: data.crop[axis] // cell[axis])
    cut = [size - cell[axis] * (axis == largest) for axis, size in enumerate(data.crop)]
    if min(cut) <= 0:
        return f"Use a smaller model than {settings.model.name} in a new --output"
    return f"Use a smaller crop, e.g. data.crop={cut}, in a new --output"
