#!/bin/sh
# Builds MinkowskiEngine 0.5.4 against the torch of an environment and installs it there.
#   docker/minkowski.sh .venv/bin/python                a processor
#   docker/minkowski.sh .venv/bin/python --force_cuda   with CUDA; needs nvcc of the CUDA that torch was built with
# Needs g++ and OpenBLAS (Debian: apt-get install g++ libopenblas-dev). See docs/how-to/minkowski.md.
set -eu
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
flags=${*:---cpu_only}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Its setup.py is from 2021: it needs a setuptools of that time, and torch at hand while it is read (so no build isolation).
before=$("$python" -c 'import setuptools; print(setuptools.__version__)' 2>/dev/null || true)
"$python" -m pip install --quiet --no-deps 'setuptools==59.8.0' wheel ninja
"$python" -m pip download --quiet --no-deps --no-build-isolation --no-binary :all: -d "$work" MinkowskiEngine==0.5.4
cd "$work"
tar xzf MinkowskiEngine-0.5.4.tar.gz
cd MinkowskiEngine-0.5.4
# Python 3.10 moved Sequence to collections.abc.
find MinkowskiEngine -name '*.py' -exec sed -i -e 's/^from collections import Sequence, namedtuple/from collections import namedtuple\nfrom collections.abc import Sequence/' \
  -e 's/^from collections import Sequence$/from collections.abc import Sequence/' {} +
# CUDA 12's thrust no longer includes these by itself.
sed -i '1i #include <thrust/execution_policy.h>' src/convolution_kernel.cuh src/3rdparty/concurrent_unordered_map.cuh
sed -i '1i #include <thrust/unique.h>\n#include <thrust/remove.h>' src/coordinate_map_gpu.cu
sed -i '1i #include <thrust/execution_policy.h>\n#include <thrust/reduce.h>\n#include <thrust/sort.h>' src/spmm.cu
# shellcheck disable=SC2086
MAX_JOBS=${MAX_JOBS:-2} "$python" setup.py bdist_wheel --blas=openblas $flags
"$python" -m pip install --no-deps --force-reinstall dist/MinkowskiEngine-0.5.4-*.whl
# What it was built with, for `wavespark doctor`.
cd /
"$python" - <<'END'
import importlib.metadata, pathlib, torch
where = importlib.metadata.distribution("MinkowskiEngine").locate_file("MinkowskiEngine-0.5.4.dist-info")
(pathlib.Path(where) / "built-with-torch.txt").write_text(torch.__version__ + "\n")
END
if [ -n "$before" ]; then "$python" -m pip install --quiet --no-deps "setuptools==$before"; fi
"$python" -c 'import torch, MinkowskiEngine; print("MinkowskiEngine", MinkowskiEngine.__version__, "with torch", torch.__version__)'
