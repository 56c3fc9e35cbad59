# Shared by the checks of this directory. They run in the repository, with the folder of the artefacts in $DIST.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
DIST=$(realpath "${DIST:-dist}")
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
name=runwatch-$version-$(uname -m)-unknown-linux-gnu
scratch=$(mktemp -d)
started=()
cleanup() {
    [ ${#started[@]} = 0 ] || kill "${started[@]}" 2>/dev/null || true
    wait
    rm -rf "$scratch"
}
trap cleanup EXIT
printf '\n--- %s\n' "${0##*/}"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# check WHAT COMMAND…: the command succeeds.
check() {
    local what=$1
    shift
    "$@" >"$scratch/checked" 2>&1 || fail "not so: $what: $(cat "$scratch/checked")"
    echo "ok: $what"
}

# exits CODE COMMAND…: the command exits with this code; what it prints is in $scratch/printed.
exits() {
    local expected=$1 code=0
    shift
    "$@" >"$scratch/printed" 2>&1 || code=$?
    [ "$code" = "$expected" ] || { cat "$scratch/printed" && echo "exited with $code instead of $expected" && return 1; }
}

figure() { printf 'figure: %s: %s\n' "$1" "$2"; }

# await WHAT COMMAND…: waits until the command succeeds.
await() {
    local what=$1 until=$((SECONDS + 30))
    shift
    until "$@" >"$scratch/awaited" 2>&1; do
        [ "$SECONDS" -lt "$until" ] || fail "waited in vain for $what: $(cat "$scratch/awaited")"
        sleep 0.05
    done
}

# unpack: the archive's folder, unpacked once, is in $unpacked.
unpack() {
    tar -xJf "$DIST/$name.tar.xz" -C "$scratch"
    unpacked=$scratch/$name
}

# simulate RUN…: starts a simulator; its address is in $api.
simulate() {
    local runs=() run
    for run in "$@"; do runs+=(--run "$run"); done
    "$unpacked/runwatch" simulate --listen 127.0.0.1:0 "${runs[@]}" >"$scratch/simulator" 2>&1 &
    started+=($!)
    await "the simulator" grep -Eo 'http://127.0.0.1:[0-9]+' "$scratch/simulator"
    api=$(head -n 1 "$scratch/awaited")
}

# serve FOLDER: starts a file server; its address is in $files.
serve() {
    python3 -u -m http.server 0 --bind 127.0.0.1 --directory "$1" >"$scratch/files" 2>&1 &
    started+=($!)
    await "the file server" grep -Eo 'http://127.0.0.1:[0-9]+' "$scratch/files"
    files=$(head -n 1 "$scratch/awaited")
}
