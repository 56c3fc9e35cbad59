# Shared by the scripts of this directory, each of which runs as root in a container with a real systemd.
# shellcheck shell=bash
set -euo pipefail
export PAGER=cat HOME=/root

# Ends the test, with what led to it.
fail() {
    echo "FAILED: $*"
    journalctl --no-pager --output=short-monotonic --lines=150 || true
    exit 1
}

# await WHAT COMMAND…: waits until the command succeeds.
await() {
    local what=$1 until=$((SECONDS + 20))
    shift
    until "$@" >/tmp/awaited 2>&1; do
        [ "$SECONDS" -lt "$until" ] || fail "waited in vain for $what: $(cat /tmp/awaited)"
        sleep 0.05
    done
    echo "ok: $what"
}

# is EXPECTED COMMAND…: the command prints that.
is() {
    local expected=$1 got
    shift
    got=$("$@" || true)
    [ "$got" = "$expected" ] || { echo "$got" && return 1; }
}

# has PATTERN COMMAND…: a line of what the command prints matches.
has() {
    local pattern=$1 got
    shift
    got=$("$@" || true)
    grep -E "$pattern" <<<"$got" >/dev/null || { echo "$got" && return 1; }
}

# check WHAT COMMAND…: the command succeeds.
check() {
    local what=$1
    shift
    "$@" >/tmp/checked 2>&1 || fail "not so: $what: $(cat /tmp/checked)"
    echo "ok: $what"
}

simulators=0

# simulate KEY RUN…: the API from now on.
simulate() {
    local key=$1 runs=() run
    shift
    for run in "$@"; do runs+=(--run "$run"); done
    systemctl stop "simulator-$simulators" 2>/dev/null || true
    # A name of its own each time: systemd forgets a unit when it likes.
    simulators=$((simulators + 1))
    systemd-run --quiet --unit="simulator-$simulators" --collect \
        runwatch simulate --listen 127.0.0.1:8400 --api-key "$key" "${runs[@]}"
}
