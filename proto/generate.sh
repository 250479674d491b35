#!/bin/sh
# Generates gpud/v1 from proto/ into the folder given. The tool is pinned old on purpose:
# its output loads on grpcio >= 1.76 and protobuf >= 6.31.1, while newer tools refuse older readers.
# usage: proto/generate.sh PYTHON_WITH_GRPCIO_TOOLS OUT
set -eu
python=$1
out=$2
cd "$(dirname "$0")"
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc -I. \
    --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" --mypy_grpc_out="$out" \
    gpud/v1/*.proto
