"""Check of the resources of training outside Python: disk, shared memory, limits, threads, forked
processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from wavespark.doctor.check import Check
from wavespark.doctor.messages import recognise

_GIB = 2**30
_FORK = """
import os, signal, sys, time
import numpy, torch, blosc2
blosc2.set_nthreads(1)
torch.set_num_threads(max(2, torch.get_num_threads()))
x = torch.ones(256, 256)
x @ x, x.numpy() @ x.numpy()
child = os.fork()
if child == 0:
    torch.set_num_threads(1)
    packed = blosc2.pack_array2(x.numpy()) if hasattr(blosc2, "pack_array2") else None
    ok = float((x @ x).sum() + (x.numpy() @ x.numpy()).sum()) == 2 * 256.0 ** 3
    os._exit(0 if ok else 3)
for _ in range(200):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        sys.exit(os.waitstatus_to_exitcode(status) != 0)
    time.sleep(0.1)
os.kill(child, signal.SIGKILL)
sys.exit(2)
"""
_RUNTIMES = """
import re, sys, warnings
warnings.simplefilter("ignore")
import torch, numpy, scipy.linalg
for name in sys.argv[1:]:
    try:
        __import__(name)
    except BaseException:
        pass
maps = open("/proc/self/maps").read()
print(*sorted(set(re.findall(r"/(lib(?:gomp|iomp5|omp)[^/\\n]*\\.so[^/\\n]*)", maps))))
"""


def resource_checks() -> list[Check]:
    """Disk, /dev/shm, open files, processes, OpenMP runtimes, a forked worker."""
    return [_disk(), *_shared_memory(), *_limits(), *_runtimes(), *_fork()]


def _disk() -> Check:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / _GIB
    ok = free >= 2 and os.access(here, os.W_OK)
    words = f"{free:.1f} GiB" + ("" if os.access(here, os.W_OK) else ", and this folder cannot be written")
    return Check(
        name="free disk here",
        expected=">= 2 GiB",
        found=words,
        ok=ok,
        remedy="" if ok else "make room, or work in a folder on another disk",
    )


def _shared_memory(folder: Path = Path("/dev/shm")) -> list[Check]:  # nosec B108: it is looked at, nothing is written
    """Loader processes hand crops over through it."""
    if not folder.is_dir():
        return []
    total, _, free = shutil.disk_usage(folder)
    small = free < _GIB
    return [
        Check(
            name="shared memory",
            expected=">= 1 GiB free",
            found=f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free",
            ok=True,
            warning=small,
            remedy="docker run --shm-size=8g (or --ipc=host), or data.workers=0" if small else "",
        )
    ]


def _limits() -> list[Check]:
    try:
        import resource
    except ImportError:  # Windows has none
        return []

    def limit(kind: int, name: str, least: int, letter: str) -> Check:
        soft = resource.getrlimit(kind)[0]
        few = soft not in (-1, resource.RLIM_INFINITY) and soft < least
        return Check(
            name=name,
            expected=f">= {least}",
            found="no limit" if soft in (-1, resource.RLIM_INFINITY) else str(soft),
            ok=True,
            warning=few,
            remedy=f"ulimit -{letter} {least * 4}" if few else "",
        )

    return [
        limit(resource.RLIMIT_NOFILE, "open files", 1024, "n"),
        limit(resource.RLIMIT_NPROC, "processes and threads", 1024, "u"),
    ]


def _runtimes() -> list[Check]:
    """OpenMP runtimes that end up in one process: several copies of one are usual in wheels, two
    kinds are known to crash or to crawl."""
    if not Path("/proc/self/maps").exists():
        return []
    command = [sys.executable, "-W", "ignore", "-c", _RUNTIMES, "sklearn"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return []
    found = done.stdout.split()
    meaning = recognise(done.stderr)
    kinds = {kind for kind in ("libgomp", "libiomp5", "libomp") if any(f.startswith(kind) for f in found)}
    if done.returncode != 0:
        why = meaning.cause if meaning else "torch, numpy and scipy do not load together"
        remedy = meaning.remedy if meaning else "pip install --force-reinstall numpy scipy"
        return [Check(name="OpenMP and BLAS", expected="one kind", found=why, ok=False, remedy=remedy)]
    mixed = len(kinds) > 1
    return [
        Check(
            name="OpenMP and BLAS",
            expected="one kind of OpenMP",
            found=" and ".join(sorted(kinds)) or "none",
            ok=True,
            warning=mixed,
            remedy="take torch, numpy, scipy and scikit-learn from one source (pip, or conda, not both)"
            if mixed
            else "",
        )
    ]


def _fork() -> list[Check]:
    """A process forked after threads have run must compute, as the loader's workers do."""
    if not hasattr(os, "fork"):
        return []
    command = [sys.executable, "-W", "ignore", "-c", _FORK]
    try:
        code = subprocess.run(command, capture_output=True, timeout=60, check=False).returncode
    except subprocess.TimeoutExpired:
        code = 2
    words = {0: "computes", 2: "hangs"}.get(code, "gives wrong results or ends")
    return [
        Check(
            name="a forked worker",
            expected="computes",
            found=words,
            ok=code == 0,
            remedy="" if code == 0 else "data.workers=0, and tell us with the output of `wavespark doctor --json`",
        )
    ]
