"""The accelerator: what is there, whether this torch can use it, how much memory, bf16, and whether
torch.compile works on it."""

import os
import shutil
import subprocess
import sys

from wavespark.doctor.check import Check
from wavespark.doctor.messages import recognise

_COMPILE = """
import torch
compiled = torch.compile(lambda x: (x * 2).sin().sum())
x = torch.linspace(0, 1, 1000, device="cuda")
assert torch.allclose(compiled(x), (x * 2).sin().sum(), rtol=1e-4)
"""


def machine_checks(cuda: str = "") -> list[Check]:
    """The accelerator lines of the table; `cuda` is the pinned toolkit, or empty if any will do."""
    import torch

    checks = [_toolkit(cuda, str(torch.version.cuda or ""))] if cuda else []
    if torch.cuda.is_available():
        return [*checks, _card(), _computes(), _compiles()]
    return [*checks, _without_card(str(torch.version.cuda or "")), _compiler()]


def _toolkit(wanted: str, found: str) -> Check:
    # torch tells major and minor; 12.1.1 is the toolkit whose compiler calls itself 12.1.105.
    same = wanted.split(".")[:2] == found.split(".")[:2]
    return Check(
        name="CUDA of torch",
        expected=wanted,
        found=found or "none: a CPU build of torch",
        ok=same,
        remedy="" if same else f"install the build of torch for CUDA {'.'.join(wanted.split('.')[:2])}",
    )


def _card() -> Check:
    import torch

    card = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    precision = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: training uses fp16"
    arch, known = f"sm_{card.major}{card.minor}", torch.cuda.get_arch_list()
    fits = not known or any(a == arch or (a[:4] == arch[:4] and a.startswith("sm_") and a <= arch) for a in known)
    fits = fits or any(a.startswith("compute_") for a in known)
    words = (
        f"{torch.cuda.device_count()} x {card.name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, {arch}, "
        f"driver {_driver()}, CUDA {torch.version.cuda}, {precision}"
    )
    remedy = "" if fits else f"this torch is built for {', '.join(known)}: install one that knows {arch}"
    return Check(name="accelerator", expected="one that this torch is built for", found=words, ok=fits, remedy=remedy)


def _driver() -> str:
    told = _smi("driver_version")
    return told.splitlines()[0] if told else "unknown"


def _smi(field: str) -> str:
    """Return a field of nvidia-smi; empty if it is missing or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _computes() -> Check:
    """A convolution on the card, forward and backward, against the processor."""
    import torch
    import torch.nn.functional as F

    name, expected = "accelerator computes", "as the processor"
    try:
        generator = torch.Generator().manual_seed(0)
        x, w = (torch.randn(1, 4, 8, 8, 8, generator=generator), torch.randn(4, 4, 3, 3, 3, generator=generator))
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            w_card = w.cuda().requires_grad_()
            y = F.conv3d(x.cuda(), w_card)
            y.sum().backward()
        error = float((y.detach().cpu() - F.conv3d(x, w)).abs().max())
    except Exception as failure:
        meaning = recognise(str(failure))
        why = meaning.cause if meaning else type(failure).__name__
        remedy = meaning.remedy if meaning else "try another build of torch, or run.device=cpu"
        return Check(name=name, expected=expected, found=f"fails: {why}", ok=False, remedy=remedy)
    ok = error < 1e-3
    remedy = "" if ok else "the card gives wrong numbers: test its memory, or use another one"
    return Check(name=name, expected=expected, found=f"differs by {error:.0e}", ok=ok, remedy=remedy)


def _compiles() -> Check:
    command = [sys.executable, "-W", "ignore", "-c", _COMPILE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=90, check=False)
        worked, error = done.returncode == 0, done.stderr
    except subprocess.TimeoutExpired:
        worked, error = False, ""
    meaning = None if worked else recognise(error, "torch")
    return Check(
        name="torch.compile",
        expected="optional",
        found="works" if worked else f"does not work{f': {meaning.cause}' if meaning else ''}",
        ok=True,
        warning=not worked,
        remedy="" if worked else (meaning.remedy if meaning else "keep run.compile=off, or install a C compiler (gcc)"),
    )


def _without_card(cuda: str) -> Check:
    seen = _smi("name,driver_version")
    if not seen:
        return Check(name="accelerator", expected="optional", found="skipped: no CUDA device", ok=True, absent=True)
    why = f"this torch is built for CUDA {cuda} and cannot reach it" if cuda else "this torch is a CPU build"
    remedy = (
        "update the NVIDIA driver, or install a torch for an older CUDA"
        if cuda
        else "pip uninstall torch, then install the CUDA build of torch for your driver"
    )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if cuda and hidden is not None:
        why, remedy = f"CUDA_VISIBLE_DEVICES is {hidden!r}", "unset CUDA_VISIBLE_DEVICES"
    return Check(
        name="accelerator",
        expected="optional",
        found=f"{seen.splitlines()[0]}, but {why}",
        ok=True,
        warning=True,
        remedy=remedy,
    )


def _compiler() -> Check:
    """On a processor torch.compile needs a C++ compiler; compiling takes longer than a visit to the
    doctor, so it is not tried."""
    found = next((c for c in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if c and shutil.which(c)), "")
    words = f"{found} is there; not tried on a processor" if found else "no C++ compiler: run.compile stays off"
    return Check(name="torch.compile", expected="optional", found=words, ok=True, absent=not found)
