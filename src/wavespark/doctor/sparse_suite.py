"""The seven sparse tests and two of scale, on every engine that is installed: values, gradients,
time and memory.

The shapes are those of the validation report of the 2025-10 system (SPEC A4-A12); what it showed as
shapes is checked here as numbers, against dense operations.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wavespark.errors import SettingsError
from wavespark.sparse import (
    SparseBatchNorm,
    SparseReLU,
    SparseVoxels,
    StridedConv3d,
    SubmanifoldConv3d,
    engines,
    set_engine,
)

_TOLERANCE = 1e-5
"""Largest accepted fp32 difference from the dense operation, relative to the largest value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseCheck:
    """Result of one test on one engine."""

    engine: str
    test: str
    status: Literal["passed", "failed", "skipped"]
    detail: str
    """The shapes and the error, or what is wrong."""
    seconds: float
    peak_mb: float | None
    """Memory above the start of the test; None where this system does not tell."""


class _Failed(Exception):
    """A check that did not hold; its text is the detail."""


def sparse_suite(
    *, names: Iterable[str] | None = None, device: str = "cpu", scale: bool = True
) -> Iterator[SparseCheck]:
    """Every test on every engine, one result after the other.

    Args:
        names: engines to test; by default all that are installed.
        device: where to compute.
        scale: include the test of a million sites (a few seconds and about 1 GB).
    """
    tests = [*_SEVEN, _thousand_sites, *([_million_sites] if scale else [])]
    for name in engines() if names is None else names:
        try:
            choice = set_engine(name)
        except SettingsError as refusal:
            yield SparseCheck(engine=name, test="all", status="skipped", detail=str(refusal), seconds=0.0, peak_mb=None)
            continue
        with choice:
            for test in tests:
                yield _run(name, test, torch.device(device))


def _run(engine: str, test: Callable[[torch.device], str], device: torch.device) -> SparseCheck:
    title = (test.__doc__ or test.__name__).rstrip(".")
    status: Literal["passed", "failed", "skipped"] = "passed"
    memory = _Memory(device)
    start = time.perf_counter()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            detail = test(device)
    except _Failed as failure:
        status, detail = "failed", str(failure)
    except Exception as failure:  # a doctor reports whatever an engine throws
        status, detail = "failed", f"{type(failure).__name__}: {failure}"
    seconds = time.perf_counter() - start
    if detail.startswith("skipped"):
        status = "skipped"
    return SparseCheck(
        engine=engine, test=title, status=status, detail=detail, seconds=seconds, peak_mb=memory.peak_mb()
    )


class _Memory:
    """The peak of memory since it was made: of the device, or of this process where Linux tells
    it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._start = float(torch.cuda.memory_allocated(device))
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
        except OSError:
            self._device = torch.device("meta")
        self._start = self._process("VmRSS:")

    def _process(self, name: str) -> float:
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return 0.0
        return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0.0)

    def peak_mb(self) -> float | None:
        if self._device.type == "meta":
            return None
        cuda = self._device.type == "cuda"
        now = float(torch.cuda.max_memory_allocated(self._device)) if cuda else self._process("VmHWM:")
        return round(max(0.0, now - self._start) / 2**20, 1)


def _environment(device: torch.device) -> str:
    """1 environment."""
    if not torch.cuda.is_available():
        return "skipped: no CUDA device"
    name = torch.cuda.get_device_name(0)
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{name}, {total:.0f} GB, CUDA {torch.version.cuda}; computing on {device}"


def _three_points(device: torch.device) -> str:
    """2 sparse tensor."""
    features, sites = torch.randn(3, 2, device=device), _corner(device)
    x = SparseVoxels(features, sites, stride=1, batch_size=1)
    _demand(torch.equal(x.features, features) and torch.equal(x.sites, sites), "values or coordinates changed")
    return f"{_shape(x)}, values and coordinates unchanged"


def _convolution(device: torch.device) -> str:
    """3 convolution."""
    x = SparseVoxels(torch.randn(3, 2, device=device), _corner(device), batch_size=1)
    conv = SubmanifoldConv3d(2, 16, device=device)
    y = conv(x)
    return f"{_shape(y)}, {_equal(y.features, _dense_conv(x, conv), 'dense convolution')}"


def _batch_norm(device: torch.device) -> str:
    """4 batch norm."""
    x = SparseVoxels(torch.randn(3, 16, device=device), _corner(device), batch_size=1)
    norm, reference = SparseBatchNorm(16, device=device), nn.BatchNorm1d(16, device=device)
    y = norm(x).features
    word = _equal(y, reference(x.features), "BatchNorm1d")
    _equal(norm.get_buffer("running_mean"), reference.running_mean, "running mean")
    _equal(norm.get_buffer("running_var"), reference.running_var, "running variance")
    _demand(
        bool((y.mean(0).abs() < 1e-5).all() and ((y.var(0, correction=0) - 1).abs() < 1e-2).all()),
        "not mean 0, variance 1",
    )
    return f"{list(y.shape)}, mean 0 and variance 1 over 3 rows, {word}"


def _realistic(device: torch.device) -> str:
    """5 realistic size."""
    x = _random_voxels(625, 256, 16, device)
    conv, norm = SubmanifoldConv3d(256, 128, device=device), SparseBatchNorm(128, device=device)
    y = conv(x)
    z = norm(y)
    word = _equal(z.features, nn.BatchNorm1d(128, device=device)(_dense_conv(x, conv)), "dense")
    return f"{_shape(x)} -> {_shape(y)} -> {_shape(z)}, {word}"


def _multi_layer(device: torch.device) -> str:
    """6 multi-layer network."""
    x, network = _sixteen_cells(device), _Network(device)
    y = network(x)
    parents = torch.cat((x.sites[:, :1], x.sites[:, 1:] // 2 * 2), 1).unique(dim=0)
    _demand(torch.equal(y.sites, parents), "output coordinates are not those of the cells")
    return (
        f"{_shape(x)} -> {_shape(y)}, {_equal(y.features, network.dense(x, y), 'dense')}, coordinates of the 16 cells"
    )


def _backward(device: torch.device) -> str:
    """7 backward."""
    x, network = _sixteen_cells(device), _Network(device)
    leaves = [x.features.requires_grad_(), *network.parameters()]
    y = network(x)
    upstream = torch.randn_like(y.features)
    ours = torch.autograd.grad(y.features, leaves, upstream)
    theirs = torch.autograd.grad(network.dense(x, y), leaves, upstream)
    _demand(all(bool(g.isfinite().all()) for g in ours), "a gradient is not finite")
    # The bias before a batch norm has no influence: its gradient is rounding noise in both.
    _demand(all(bool(g.abs().max() > 0) for g in ours), "a gradient is zero")
    scale = max(float(g.abs().max()) for g in theirs)
    worst = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) / max(scale, 1.0)
    _demand(worst <= _TOLERANCE, f"gradients differ from dense by {worst:.1e}")
    return f"{len(leaves)} gradients finite, non-zero, equal to dense within {worst:.0e}"


def _thousand_sites(device: torch.device) -> str:
    """8 scale: 1000 sites of 256 channels."""
    x, conv = _random_voxels(1000, 256, 16, device), SubmanifoldConv3d(256, 256, device=device)
    return f"{_shape(x)} -> {_shape(conv(x))}, {_equal(conv(x).features, _dense_conv(x, conv), 'dense convolution')}"


def _million_sites(device: torch.device) -> str:
    """9 scale: 1000000 sites."""
    x, conv = _random_voxels(10**6, 8, 128, device), SubmanifoldConv3d(8, 8, device=device)
    x.features.requires_grad_()
    y = conv(x)
    word = _equal(y.features, _dense_conv(x, conv), "dense convolution")
    grad = torch.autograd.grad(y.features.sum(), x.features)[0]
    _demand(bool(grad.isfinite().all()), "a gradient is not finite")
    return f"{_shape(x)} -> {_shape(y)}, forward and backward, {word}"


_SEVEN = (_environment, _three_points, _convolution, _batch_norm, _realistic, _multi_layer, _backward)


class _Network(nn.Module):
    """conv-BN-ReLU, then stride 2-BN-ReLU, and the same by dense means."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.first, self.norm = SubmanifoldConv3d(2, 16, device=device), SparseBatchNorm(16, device=device)
        self.down, self.last_norm = StridedConv3d(16, 32, device=device), SparseBatchNorm(32, device=device)
        self.relu = SparseReLU()

    def forward(self, x: SparseVoxels) -> SparseVoxels:
        x = self.relu(self.norm(self.first(x)))
        result: SparseVoxels = self.relu(self.last_norm(self.down(x)))
        return result

    def dense(self, x: SparseVoxels, like: SparseVoxels) -> Tensor:
        """[N, 32] at the sites of `like`, without a sparse operation but the look-up of rows."""
        rows = _normed(_dense_conv(x, self.first), self.norm).relu()
        grid = functional.conv3d(x.with_features(rows).to_dense((8, 8, 8)), self.down.weight, self.down.bias, stride=2)
        s, d, h, w = like.sites.long().unbind(1)
        return _normed(grid[s, :, d // 2, h // 2, w // 2], self.last_norm).relu()


def _normed(rows: Tensor, norm: SparseBatchNorm) -> Tensor:
    return functional.batch_norm(rows, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)


def _dense_conv(x: SparseVoxels, conv: SubmanifoldConv3d) -> Tensor:
    """[N, C_out]: a dense convolution read at the active sites."""
    dense = functional.conv3d(x.to_dense(), conv.weight, conv.bias, padding=1)
    s, d, h, w = x.sites.long().unbind(1)
    return dense.movedim(1, -1)[s, d, h, w]


def _corner(device: torch.device) -> Tensor:
    return torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 1]], dtype=torch.int32, device=device)


def _random_voxels(count: int, channels: int, edge: int, device: torch.device) -> SparseVoxels:
    """Distinct random sites in a cube of `edge`."""
    keys = torch.randperm(edge**3)[:count].to(device)
    axes = (torch.zeros_like(keys), keys // edge**2, keys // edge % edge, keys % edge)
    return SparseVoxels(torch.randn(count, channels, device=device), torch.stack(axes, 1).int(), batch_size=1)


def _sixteen_cells(device: torch.device) -> SparseVoxels:
    """Sites in 16 of the 2^3 cells of an 8^3 grid, two to eight in each."""
    cells = torch.randperm(64)[:16].sort().values
    sites = []
    for i, cell in enumerate(cells.tolist()):
        for inner in torch.randperm(8)[: 2 + i % 7].tolist():
            corner = (cell // 16, cell // 4 % 4, cell % 4)
            step = (inner // 4, inner // 2 % 2, inner % 2)
            sites.append([0, *(2 * c + s for c, s in zip(corner, step, strict=True))])
    table = torch.tensor(sites, dtype=torch.int32, device=device)
    return SparseVoxels(torch.randn(len(sites), 2, device=device), table, batch_size=1)


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Failed(otherwise)


def _equal(ours: Tensor, theirs: Tensor | None, name: str) -> str:
    if theirs is None or ours.shape != theirs.shape:
        raise _Failed(f"shape {list(ours.shape)} differs from {name}")
    error = float((ours - theirs).detach().abs().max() / theirs.detach().abs().max().clamp(min=1.0))
    _demand(error <= _TOLERANCE, f"differs from {name} by {error:.1e}")
    return f"equal to {name} within {error:.0e}"


def _shape(x: SparseVoxels) -> str:
    return str(list(x.features.shape))
