#!/usr/bin/env bash
# Makes a virtual environment with a Python that is new enough, or says what is missing.
# usage: packaging/create_environment.sh FOLDER     ($PYTHON names an interpreter to use)
set -euo pipefail
folder=$1

fail() {
    echo "cannot create $folder: $*" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "it needs Python 3.11 or newer${PYTHON:+, and $PYTHON is none}." \
        "Install one (Debian, Ubuntu: apt-get install python3 python3-venv)" \
        "or name it: make PYTHON=/path/to/python3"
}

python=$(find_python)
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module." \
        "Install it (Debian, Ubuntu: apt-get install" \
        "python$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')-venv)"

# One whose interpreter went away is made anew.
if ! "$folder/bin/python" -c 'import pip' 2>/dev/null; then
    rm -rf "$folder"
    "$python" -m venv "$folder"
fi
