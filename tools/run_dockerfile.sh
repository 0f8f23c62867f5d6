#!/usr/bin/env bash
# Runs the RUN lines of docker/Dockerfile's first stage, and its doctor, without a container engine: in a fresh folder with a fresh virtual environment.
#   tools/run_dockerfile.sh [FOLDER]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$(mktemp -d)}
rm -rf "$folder/src" "$folder/opt" && mkdir -p "$folder/src/docker" "$folder/opt" "$folder/data"
export TORCH=${TORCH:-$(sed -n 's/^ARG TORCH=//p' "$root/docker/Dockerfile")} TORCH_INDEX=${TORCH_INDEX:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1
# What COPY would bring.
cp "$root/docker/requirements.lock" "$folder/src/docker/"
cp "$root"/{constraints.txt,pyproject.toml,README.md,LICENSE} "$folder/src/"
cp -r "$root/src" "$folder/src/src"
sed -n '/^FROM .* AS build/,/^FROM .* AS cpu/p' "$root/docker/Dockerfile" | sed -n 's/^RUN //p' | while IFS= read -r line; do
  line=${line//\/opt\//$folder/opt/}
  line=${line//\/src/$folder/src}
  line=${line//\/tmp\/wheel/$folder/wheel}
  echo "+ $line"
  bash -euo pipefail -c "$line"
done
cd "$folder/data"
echo "+ wavespark doctor"
"$folder/opt/venv/bin/wavespark" doctor
