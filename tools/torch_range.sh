#!/usr/bin/env bash
# Runs the fast part of the tests at the oldest and at the newest torch that wavespark promises to work with.
#   tools/torch_range.sh [FOLDER for the environments] [torch versions ...]
# An environment that is there already is used again. The Linux wheels of torch are CUDA builds of several GB each; they run on a processor, too.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-$(mktemp -d)}
shift || true
if [ $# -gt 0 ]; then versions=("$@"); else versions=(2.4.1 "$(sed -n 's/^torch==//p' constraints.txt)"); fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_NUM_THREADS=1
# torch 2.4 was built against numpy 2.0 and does not know later ones' arrays of strings; its users keep an older numpy.
declare -A numpy=([2.4.0]='numpy<2.3' [2.4.1]='numpy<2.3')
tests=(tests/laws tests/sparse tests/models tests/objectives tests/masking tests/checkpoints tests/config tests/engine tests/oracles)
failed=0
for version in "${versions[@]}"; do
  environment=$folder/torch-$version
  if [ ! -x "$environment/bin/pytest" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install -q "torch==$version" "${numpy[$version]:-numpy}"
    "$environment/bin/pip" install -q -e '.[dev,samples,report,wavelets,dicom]' "torch==$version" "${numpy[$version]:-numpy}"
  fi
  "$environment/bin/python" -c 'import torch, numpy; print("torch", torch.__version__, "numpy", numpy.__version__)'
  # Warnings of another version's libraries are theirs: only ours are errors everywhere, in the pinned environment.
  "$environment/bin/python" -m pytest -n 0 -W default -p no:cacheprovider "${tests[@]}" || failed=1
done
exit $failed
