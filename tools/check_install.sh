#!/usr/bin/env bash
# Builds wheel and sdist and installs each into a clean environment of every Python at hand (3.11-3.13), without dependencies' own tests:
# imports, help, the data files, py.typed.
#   tools/check_install.sh [FOLDER]
# Set FULL=1 to install torch and all else as well and to ask the doctor; it takes a GB for each Python.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-$(mktemp -d)}
export PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m venv "$folder/build"
"$folder/build/bin/pip" install -q build
rm -rf "$folder/dist"
"$folder/build/bin/python" -m build -o "$folder/dist" . >/dev/null
for version in 3.11 3.12 3.13; do
  python=$(command -v "python$version" || true)
  { [ -n "$python" ] && "$python" -c '' 2>/dev/null; } || { echo "Python $version: not here"; continue; }
  for kind in whl tar.gz; do
    environment=$folder/$version-$kind
    rm -rf "$environment"
    "$python" -m venv "$environment"
    file=$(ls "$folder"/dist/*."$kind")
    if [ "${FULL:-}" = 1 ]; then
      "$environment/bin/pip" install -q "$file"
      (cd "$folder" && "$environment/bin/wavespark" doctor)
    else
      # What --help and the report need, and nothing of torch's size.
      "$environment/bin/pip" install -q typer rich pydantic numpy nibabel safetensors
      "$environment/bin/pip" install -q --no-deps "$file"
    fi
    (cd "$folder" && "$environment/bin/python" - <<'END'
import subprocess, sys
from importlib.resources import files
import wavespark
root = files("wavespark")
for name in ("py.typed", "recipes/head-1mm.toml", "configs/tiny-cpu.toml", "pages/page.css", "report/viewer.js", "report/niivue/LICENSE", "report/niivue/niivue-0.69.0.umd.js.gz"):
    assert root.joinpath(name).is_file(), name
subprocess.run([sys.executable, "-m", "wavespark", "--help"], check=True, stdout=subprocess.DEVNULL)
print("Python", sys.version.split()[0], "wavespark", wavespark.__version__, "from", sys.prefix.rsplit("-", 1)[-1])
END
    )
  done
done
