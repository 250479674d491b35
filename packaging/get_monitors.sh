#!/usr/bin/env bash
# Gets nvitop and gpustat, which the benchmarks measure beside gpud's sampling, into an environment
# of their own in .build/monitors (they want another nvidia-ml-py); the last line is its Python.
set -euo pipefail
cd "$(dirname "$0")/.."

place=$PWD/.build/monitors
if ! "$place/bin/python" -c 'import nvitop, gpustat' 2>/dev/null; then
    packaging/create_environment.sh "$place" >&2
    "$place/bin/python" -m pip install --quiet --disable-pip-version-check \
        'nvitop==1.7.0' 'gpustat==1.1.1' >&2
fi
echo "$place/bin/python"
