#!/usr/bin/env bash
# Gets a real Prometheus and promtool, which the tests of the metrics, rules and dashboards ask; the
# last line on stdout is the folder of both, the rest is told on stderr.
#
# The first of these that there is:
#   1. the folder $PROMETHEUS_BIN, else prometheus and promtool on PATH: yours, used as they are
#   2. .build/prometheus: what an earlier run of this script left
#   3. the package of this distribution (Debian, Ubuntu; 20 MB), unpacked into .build/prometheus
#
# Nothing outside .build is touched, and no service is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

place=$PWD/.build/prometheus

say() { echo "$*" >&2; }
fail() {
    say "cannot get a Prometheus: $*"
    say "Put prometheus and promtool on PATH, or name their folder: PROMETHEUS_BIN=/path make …"
    exit 1
}

runs() { timeout 20 "$1/prometheus" --version >/dev/null 2>&1 && timeout 20 "$1/promtool" --version >/dev/null 2>&1; }

found() {
    echo "$1"
    exit 0
}

use_present() {
    local program
    if [ -n "${PROMETHEUS_BIN:-}" ]; then
        runs "$PROMETHEUS_BIN" || fail "\$PROMETHEUS_BIN is $PROMETHEUS_BIN, which has no prometheus and promtool that run"
        found "$(realpath "$PROMETHEUS_BIN")"
    fi
    if program=$(command -v prometheus) && runs "$(dirname "$program")"; then
        found "$(dirname "$program")"
    fi
    if runs "$place"; then
        found "$place"
    fi
}

fetch() { apt-get "$@" -qq download prometheus >&2; }

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
for program in apt-get dpkg; do
    command -v "$program" >/dev/null || fail "there is no $program here to fetch it with."
done
mkdir -p .build
exec 9>.build/prometheus.lock
flock 9 # two tasks at once get it once
use_present

scratch=$(realpath "$(mktemp -d .build/prometheus.XXXXXX)")
trap 'rm -rf "$scratch"' EXIT
say "Getting Prometheus from this distribution's packages (20 MB) …"
download "$scratch" || fail "the package could not be downloaded."
for file in "$scratch"/packages/*.deb; do dpkg -x "$file" "$scratch/unpacked"; done
mkdir "$scratch/made"
cp "$scratch"/unpacked/usr/bin/{prometheus,promtool} "$scratch/made/"
rm -rf "$place"
mv "$scratch/made" "$place"
use_present
fail "what was put into $place does not run"
