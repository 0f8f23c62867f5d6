"""The processes of a run: one, or those that torchrun starts.

Plain torch.distributed: DDP or FSDP2.

The position of a run is one integer and every draw is a function of (seed, draw), so no process has
a generator whose state would have to be saved.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from wavespark.engine.machine.synced_norm import sync_batch_norm
from wavespark.errors import ExitCode, SettingsError, TrainingStopped, WavesparkError
from wavespark.progress import ShouldStop

PATIENCE = timedelta(minutes=30)
"""Longest time that a process waits for the others."""
GRACE_SECONDS = 25.0
"""After a request to stop: torchrun kills after 30 s, and a process that waits for a dead one sees
no request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @property
    def writes(self) -> bool:
        """Only the first process writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the device of the values."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, asked: str | None) -> str | None:
        """Return the signal that any process received, the same in all of them, so that they stop
        after the same step."""
        if self.world == 1:
            return asked
        # A tensor of the CPU goes over gloo: reading it does not wait for the accelerator.
        flag = torch.tensor([_SIGNALS.index(asked) if asked in _SIGNALS else 0 if not asked else 1])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return _SIGNALS[int(flag)]

    def same(self, number: int) -> int:
        """Return the number that the first process holds."""
        if self.world == 1:
            return number
        value = torch.tensor([number])
        dist.broadcast(value, 0)
        return int(value)

    def wait(self) -> None:
        """Wait until all processes arrive."""
        self.same(0)


_SIGNALS = (None, "a request", "SIGUSR1", "SIGINT", "SIGTERM")


def ranks_of(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Read the processes of the run from torchrun's environment; a single process without it.

    Raises:
        SettingsError: if it says something impossible.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return Ranks()
    try:
        ranks = Ranks(
            rank=int(environment["RANK"]),
            world=int(environment["WORLD_SIZE"]),
            local_rank=int(environment.get("LOCAL_RANK", 0)),
            local_world=int(environment.get("LOCAL_WORLD_SIZE", 1)),
        )
    except ValueError:
        raise SettingsError("RANK, WORLD_SIZE, LOCAL_RANK are no numbers: start with torchrun") from None
    if not 0 <= ranks.rank < ranks.world:
        raise SettingsError(f"RANK {ranks.rank} is not below WORLD_SIZE {ranks.world}: start with torchrun")
    return ranks


@contextmanager
def process_group(ranks: Ranks) -> Iterator[None]:
    """Connect the processes of the run inside the context.

    Raises:
        TrainingStopped: if another process is lost; torchrun starts all again, and they go on from
            the last checkpoint.
    """
    if ranks.world == 1:
        yield
        return
    store, rank, world = next(rendezvous("env://", timeout=PATIENCE))
    # torchrun keeps one store over all its restarts: without a name of its own, an attempt reads
    # what the dead one left.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, store=PrefixStore(f"attempt_{attempt}/", store), rank=rank, world_size=world, timeout=PATIENCE
    )
    code = ExitCode.FAILED
    try:
        yield
        code = ExitCode.DONE
    except WavesparkError as error:
        code = error.exit_code
        raise
    except RuntimeError as error:
        if "peer" not in str(error) and "NCCL" not in str(error) and not isinstance(error, dist.DistError):
            raise
        raise TrainingStopped(
            f"process {ranks.rank} of {ranks.world} lost another one, which was killed or failed: torchrun --max-restarts=3 starts all again "
            "by itself, and the same command goes on from the last checkpoint",
            ExitCode.FAILED,
        ) from None
    finally:
        _part(code)


def _part(code: int) -> None:
    """Leaves the other processes.

    What one of them left behind can hold this one without end: then it ends here, everything being
    saved.
    """
    timer = threading.Timer(GRACE_SECONDS, os._exit, (code,))
    timer.daemon = True
    timer.start()
    dist.destroy_process_group()
    timer.cancel()


def average_gradients(module: nn.Module, ranks: Ranks, parallel: str, device: torch.device) -> nn.Module:
    """Wrap the module so that gradients become the mean over all processes.

    Raises:
        SettingsError: if a dense batch norm would not be that of the whole batch.
    """
    if ranks.world == 1:
        return module
    module = sync_batch_norm(module)  # first: torch would take a SparseBatchNorm for a dense one
    if device.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm) and device.type == "cpu":
            raise SettingsError(
                f"{name} ({type(part).__name__}) would take the statistics of each of {ranks.world} processes alone: train in one process, "
                "or on accelerators"
            )
    if parallel == "fsdp":
        return module
    devices = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=True)


def shard(model: nn.Module, ranks: Ranks, parallel: str) -> None:
    """Leave each process its shard of the weights, in place (FSDP2, the model as one unit).

    Raises:
        SettingsError: if this torch has no FSDP2.
    """
    if ranks.world == 1 or parallel != "fsdp":
        return
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        raise SettingsError(
            f"run.parallel=fsdp needs torch 2.6 or newer, this is {torch.__version__}: use ddp"
        ) from None
    # The gathered weights stay until the update: objectives may also call parts of the model.
    fully_shard(model, reshard_after_forward=False)


def gather_whole(tensor: Tensor) -> Tensor:
    """Return the tensor itself, or gather it from the shards of all processes, which must all call
    this."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def place_like(tensor: Tensor, pattern: Any) -> Tensor:
    """Return the tensor on the device of the pattern and sharded as it is."""
    if not hasattr(pattern, "full_tensor"):
        return tensor.to(pattern.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(pattern.device), pattern.device_mesh, pattern.placements)


def leave_when_stuck(should_stop: ShouldStop, ranks: Ranks) -> None:
    """Ends this process some time after a request to stop that it could not follow, because it
    waits for a dead one."""
    if ranks.world == 1:
        return

    def watch() -> None:
        while not should_stop():
            time.sleep(0.5)
        time.sleep(GRACE_SECONDS)
        os._exit(ExitCode.INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()
