"""Messages of other libraries that people meet, what they mean and what to type.

Each pattern was met in public issue trackers or on our own machines; the text of a message is
searched, never shown.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meaning:
    """Explanation of an error message."""

    cause: str
    remedy: str


_REBUILD = "pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation {package}"
_REBUILD_MINKOWSKI = "docker/minkowski.sh PYTHON, see docs/how-to/minkowski.md"
"""Plain pip cannot: its sources are of 2021."""
_NO_MINKOWSKI = "Nothing needs MinkowskiEngine: pip uninstall MinkowskiEngine keeps the engine `torch`"

_KNOWN: tuple[tuple[str, Meaning], ...] = (
    (
        r"torchvision::nms does not exist|torch\.library.{0,40}no attribute .register_fake",
        Meaning(
            "torchvision was built for another torch",
            "pip uninstall torchvision (wavespark does not use it), or install the torchvision made for this torch",
        ),
    ),
    (
        r"Minkowski(Sync)?(BatchNorm|Normalization).{0,4000}(CUDA error|CUDNN_STATUS|CUSPARSE_STATUS)|"
        r"(CUDA error|CUDNN_STATUS|CUSPARSE_STATUS).{0,4000}Minkowski(Sync)?(BatchNorm|Normalization)",
        Meaning(
            "MinkowskiEngine's batch norm fails on the GPU: the extension was built for another torch or CUDA",
            f"rebuild it against this torch ({_REBUILD_MINKOWSKI}). {_NO_MINKOWSKI}",
        ),
    ),
    (
        r"undefined symbol: \S*(2at|3c10|5torch|c10|caffe2)|libc10\.so|libtorch\w*\.so.{0,80}(undefined|cannot open)|"
        r"THC/THC|_C\.\S*\.so: undefined symbol",
        Meaning(
            "a compiled extension was built for another torch",
            "rebuild it against this torch: {rebuild}",
        ),
    ),
    (
        r"compiled using NumPy 1\.x|_ARRAY_API not found|numpy\.core\.multiarray failed to import|"
        r"numpy\.(dtype|ndarray) size changed|was removed in the NumPy 2\.0",
        Meaning(
            "a wheel that was built for numpy 1 meets numpy 2",
            "pip install --upgrade {package}, or, where it has no newer release, pip install 'numpy<2'",
        ),
    ),
    (
        r"OMP: Error #15|libiomp5.{0,80}already initialized|MKL_THREADING_LAYER=INTEL is incompatible",
        Meaning(
            "two OpenMP runtimes in one process",
            "take torch, numpy and scipy from one source (pip, or conda, not both); until then "
            "export MKL_THREADING_LAYER=GNU",
        ),
    ),
    (
        r"OpenBLAS blas_thread_init|OpenBLAS Warning|libgomp: Thread creation failed|pthread_create failed",
        Meaning(
            "no more threads may be started, or OpenBLAS and OpenMP start them for each other",
            "export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=2, and raise the limit: ulimit -u 4096",
        ),
    ),
    (
        r"cannot allocate memory in static TLS block",
        Meaning(
            "a library was loaded too late for its thread-local storage", "import torch first, or upgrade {package}"
        ),
    ),
    (
        r"cannot import name '\w+' from 'collections'|module 'collections' has no attribute",
        Meaning(
            "the package is older than Python 3.10: it looks for collections.abc in collections",
            "pip install --upgrade {package}; MinkowskiEngine 0.5.4 needs the change of docs/how-to/minkowski.md",
        ),
    ),
    (
        r"lib(cudart|cublas|cusparse|cudnn|nvrtc)\S*\.so\S*: cannot open shared object",
        Meaning(
            "it was built for a CUDA that is not installed",
            "install the build of {package} for the CUDA of this torch (python -c 'import torch; print(torch.version.cuda)')",
        ),
    ),
    (
        r"no kernel image is available|not compatible with the current PyTorch installation",
        Meaning(
            "this torch was not built for this GPU",
            "install a torch whose CUDA build knows the GPU's compute capability",
        ),
    ),
    (
        r"driver on your system is too old|CUDA driver version is insufficient|forward compatibility was attempted",
        Meaning(
            "the NVIDIA driver is older than the CUDA of this torch",
            "update the driver, or install an older CUDA build",
        ),
    ),
    (
        r"(GLIBCXX|GLIBC|CXXABI)_\d\S*' not found|version .GLIBC\S* not found",
        Meaning("the package was built on a newer Linux", "update the system, or build {package} from source here"),
    ),
    (
        r"[Bb]us error|insufficient shared memory|unable to (open|mmap) shared memory|No space left on device.{0,80}shm",
        Meaning("shared memory is full", "give the container more (docker run --shm-size=8g), or set data.workers=0"),
    ),
    (
        r"Too many open files|received 0 items of ancdata",
        Meaning("too many open files", "ulimit -n 4096"),
    ),
    (
        r"ModuleNotFoundError: No module named 'pkg_resources'|No module named 'distutils'",
        Meaning("it needs an older setuptools", "pip install 'setuptools<81'"),
    ),
    (
        r"No module named '(?P<missing>\w+)(\.[\w.]+)?'",
        Meaning("it needs {missing}, which is not installed", "pip install {missing}"),
    ),
)


def recognise(message: str, package: str = "PACKAGE") -> Meaning | None:
    """Explain a message and name the remedy; `None` if it is not known.

    >>> recognise("RuntimeError: operator torchvision::nms does not exist").cause
    'torchvision was built for another torch'
    """
    for pattern, meaning in _KNOWN:
        if match := re.search(pattern, message, re.DOTALL):
            rebuild = _REBUILD_MINKOWSKI if package == "MinkowskiEngine" else _REBUILD.format(package=package)
            names = {"package": package, "missing": match.groupdict().get("missing", ""), "rebuild": rebuild}
            return Meaning(meaning.cause.format(**names), meaning.remedy.format(**names))
    return None
