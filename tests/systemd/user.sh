#!/usr/bin/env bash
# The user service: in a session with a desktop it shows a notification.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

useradd --create-home ada
home=/home/ada
units=$home/.config/systemd/user
uid=$(id -u ada)
runtime=/run/user/$uid

# as_ada COMMAND…: runs it in her session.
as_ada() {
    runuser -u ada -- env HOME="$home" XDG_RUNTIME_DIR="$runtime" \
        DBUS_SESSION_BUS_ADDRESS="unix:path=$runtime/bus" "$@"
}
# writes FILE: hers alone, with what comes in.
umask 077
writes() { as_ada tee "$1" >/dev/null; }
property() { as_ada systemctl --user show runwatch --property="$1" --value; }
verify() { as_ada systemd-analyze --user verify --man=no "$units/runwatch.service" 2>&1; }
# What is on the screen is moved to the history, which can be read.
shown() { as_ada dunstctl close-all && as_ada dunstctl history; }

# What a user does.
as_ada install -d "$units" "$home/.config/runwatch"
as_ada install -m 644 /test/units/user/runwatch.service "$units/runwatch.service"
writes "$home/.config/runwatch/api-key" <<<"her-key"
writes "$home/.config/runwatch/config.toml" <<'CONFIG'
[api]
base_url = "http://127.0.0.1:8400"
api_key_file = "~/.config/runwatch/api-key"
[poll]
initial_interval = "100ms"
max_interval = "200ms"
[[notify.desktop]]
gather = "0s"
[[run]]
id = "hers"
name = "nightly"
CONFIG

# The session: a screen that nobody sees. D-Bus starts the notification daemon when there is something to show.
writes "$units/screen.service" <<'UNIT'
[Service]
Type=exec
ExecStart=Xvfb :7 -screen 0 800x600x24 -nolisten tcp
UNIT
writes "$units/session.target" <<'UNIT'
[Unit]
BindsTo=graphical-session.target
Before=graphical-session.target
UNIT
simulate "her-key" id=hers,duration=0s,end=failed
loginctl enable-linger ada
await "her service manager" systemctl is-active --quiet "user@$uid"
check "the unit has no mistakes" is "" verify
as_ada systemctl --user start screen
await "the screen" [ -S /tmp/.X11-unix/X7 ]
as_ada systemctl --user set-environment DISPLAY=:7
as_ada systemctl --user enable --quiet runwatch
check "it does not run without a session" is inactive as_ada systemctl --user is-active runwatch
check "the session begins" as_ada systemctl --user start session.target

await "the session to have it running" as_ada systemctl --user is-active --quiet runwatch
await "the notification" has "Run nightly failed" shown
check "the run has failed" has "^hers .*FAILED" as_ada runwatch list --all
check "it is reloaded" as_ada systemctl --user reload runwatch
await "the status line" is "1 run, 1 finished, 0 deliveries pending" property StatusText
check "its state is where a daemon run by hand has it" [ -s "$home/.local/state/runwatch/runwatch.db" ]

check "the session ends" as_ada systemctl --user stop session.target
await "it to end with the session" is inactive property ActiveState
check "it stopped well" is "success 0" echo "$(property Result) $(property ExecMainStatus)"
