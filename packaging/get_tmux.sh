#!/usr/bin/env bash
# Gets a tmux, in which a test sees `gpuctl top` as a person does; the last line on stdout is its
# path, the rest is told on stderr.
#
# The first of these that there is:
#   1. $TMUX_BIN, else tmux on PATH: yours, used as it is
#   2. .build/tmux: what an earlier run of this script left
#   3. the package of this distribution (Debian, Ubuntu; 1 MB) with its libraries, unpacked there
#
# Nothing outside .build is touched.
set -euo pipefail
cd "$(dirname "$0")/.."

place=$PWD/.build/tmux

say() { echo "$*" >&2; }
fail() {
    say "cannot get a tmux: $*"
    say "Put tmux on PATH, or name it: TMUX_BIN=/path/to/tmux make …"
    exit 1
}

runs() { timeout 20 "$1" -V >/dev/null 2>&1; }

found() {
    echo "$1"
    exit 0
}

use_present() {
    local program
    if [ -n "${TMUX_BIN:-}" ]; then
        runs "$TMUX_BIN" || fail "\$TMUX_BIN is $TMUX_BIN, and \`$TMUX_BIN -V\` fails"
        found "$(realpath "$TMUX_BIN")"
    fi
    if program=$(command -v tmux) && runs "$program"; then
        found "$program"
    fi
    if runs "$place/tmux"; then
        found "$place/tmux"
    fi
}

# With it the libraries that it names, but libc: their names differ from release to release.
fetch() { # OPTION …
    local libraries
    libraries=$(apt-cache "$@" depends tmux | sed -n 's/.*Depends: \(lib[a-z0-9.+-]*\)$/\1/p' | grep -v '^libc6$') || return 1
    # shellcheck disable=SC2086  # names, a word each
    apt-get "$@" -qq download tmux $libraries >&2
}

# With the system's own lists, or where these are missing or old, with new ones in a folder of ours.
download() ( # FOLDER
    private=(
        -o Dir::State::lists="$1/lists" -o APT::Sandbox::User="$(id -un)"
        -o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30
    )
    mkdir -p "$1/packages" "$1/lists/partial" && cd "$1/packages" || return 1
    fetch || { apt-get "${private[@]}" -qq update >&2 && fetch "${private[@]}"; }
)

use_present
for program in apt-get apt-cache dpkg; do
    command -v "$program" >/dev/null || fail "there is no $program here to fetch it with."
done
mkdir -p .build
exec 9>.build/tmux.lock
flock 9 # two tasks at once get it once
use_present

scratch=$(realpath "$(mktemp -d .build/tmux.XXXXXX)")
trap 'rm -rf "$scratch"' EXIT
say "Getting tmux from this distribution's packages (1 MB) …"
download "$scratch" || fail "its packages could not be downloaded."
for file in "$scratch"/packages/*.deb; do dpkg -x "$file" "$scratch/unpacked"; done
cat >"$scratch/unpacked/tmux" <<'END'
#!/bin/sh
here=$(dirname "$(realpath "$0")")
machine=$(uname -m)-linux-gnu
LD_LIBRARY_PATH=$here/usr/lib/$machine:$here/lib/$machine exec "$here/usr/bin/tmux" "$@"
END
chmod +x "$scratch/unpacked/tmux"
rm -rf "$place"
mv "$scratch/unpacked" "$place"
use_present
fail "what was put into $place does not run"
