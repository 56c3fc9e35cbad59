#!/usr/bin/env bash
# The system service, from its installation to its end.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

unit=/etc/systemd/system/runwatch.service
config=/etc/runwatch/config.toml
state=/var/lib/runwatch

property() { systemctl show runwatch --property="$1" --value; }
journal() { journalctl --quiet --unit=runwatch --output=cat; }
runs() { runwatch list --all; }
verify() { systemd-analyze verify --man=no "$unit" 2>&1; }
restarted() { [ "$(property NRestarts)" = "$1" ] && systemctl is-active --quiet runwatch; }
doctor() { runwatch doctor 2>/dev/null; }
wrong() { doctor | grep '^WRONG' | cut -d: -f1; }
short_succeeded() {
    journalctl --unit=runwatch --output=json RUN_ID=short EVENT=run.succeeded STATUS=SUCCEEDED
}

# What an administrator does.
install -D -m 644 /test/units/runwatch.service "$unit"
echo '127.0.0.1 localhost' >/etc/hosts
install -d /etc/runwatch
install -m 600 /dev/stdin /etc/runwatch/api-key <<<"first-key"
install -m 600 /dev/stdin /etc/runwatch/webhook-secret <<<"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
install -m 755 /dev/stdin /usr/local/bin/on-run <<'HOOK'
#!/bin/sh
[ "$RUNWATCH_RUN_ID" != last ] || { touch "$STATE_DIRECTORY/begun" && sleep 2; }
echo "$RUNWATCH_EVENT_TYPE $RUNWATCH_RUN_ID" >>"$STATE_DIRECTORY/told"
HOOK
cat >"$config" <<'CONFIG'
[api]
base_url = "http://localhost:8400"
[poll]
initial_interval = "100ms"
max_interval = "200ms"
error_initial_interval = "100ms"
error_max_interval = "200ms"
requests_per_minute = 6000
[[notify.command]]
command = ["/usr/local/bin/on-run"]
events = ["run.succeeded", "run.failed", "run.canceled", "run.lost"]
[[notify.log]]
[[notify.webhook]]
url = "http://127.0.0.1:9/"
secret_file = "/etc/runwatch/webhook-secret"
events = ["delivery.failed"]
[[run]]
id = "long"
[[run]]
id = "short"
CONFIG

check "the unit has no mistakes" is "" verify
check "the unit is exposed by 1.2 at most" \
    systemd-analyze security --offline=true --threshold=12 --no-pager "$unit"

# For the test, everything sooner; the secret as the README has it.
mkdir "$unit.d"
cat >"$unit.d/test.conf" <<'DROPIN'
[Unit]
StartLimitIntervalSec=0
[Service]
WatchdogSec=3s
RestartSec=100ms
LoadCredential=webhook-secret:/etc/runwatch/webhook-secret
DROPIN
systemctl daemon-reload

# A bad configuration: said, and not tried again.
mv "$config" "$config.good"
echo 'nonsense = 1' >"$config"
check "it does not start with a bad configuration" is 1 sh -c 'systemctl start runwatch; echo $?'
check "a bad configuration is no reason to try again" \
    is "failed exit-code 78 0" echo "$(property ActiveState) $(property Result) $(property ExecMainStatus) $(property NRestarts)"
check "doctor says how it failed" has "^WRONG   daemon: runwatch.service has failed: exit code 78, bad configuration" doctor
mv "$config.good" "$config"

# A credential that is not there: systemd says so, and does not try again.
mv /etc/runwatch/webhook-secret /etc/runwatch/webhook-secret.good
check "it does not start without its credentials" is 1 sh -c 'systemctl start runwatch 2>/dev/null; echo $?'
check "a credential that is missing is no reason to try again" \
    is "failed exit-code 243 0" echo "$(property ActiveState) $(property Result) $(property ExecMainStatus) $(property NRestarts)"
check "doctor says how it failed" has "^WRONG   daemon: .* exit code 243, a file in LoadCredential= is missing" doctor
mv /etc/runwatch/webhook-secret.good /etc/runwatch/webhook-secret

# Start.
simulate first-key id=long,duration=1h id=short,duration=0s id=more,duration=1h id=other,duration=1h
systemctl start runwatch || fail "it does not start"
check "it is ready when systemctl start returns" is active systemctl is-active runwatch
first=$(property MainPID)
check "it answers when it is ready" runwatch list
check "it does not run as root" [ "$(stat -c %u "/proc/$first")" -gt 60000 ]
await "the key to be accepted" has "^long .*PROCESSING" runs
await "the end of a run" is "run.succeeded short" cat "$state/told"
await "the status line" is "2 runs, 1 finished, 0 deliveries pending" property StatusText
check "nobody else sees the state" is 700 stat -Lc %a "$state"
check "nobody else uses the socket" is 600 stat -c %a /run/runwatch/runwatch.sock
await "the event in the journal, with its fields" has '"EVENT_ID":"[^"]' short_succeeded

check "doctor finds nothing but the channel that nobody answers" is "WRONG   channel webhook" wrong
check "others are told what they may not see" \
    has "^-       channel webhook: cannot read the webhook secret" runuser -u nobody -- runwatch doctor
check "that is not wrong" [ "$(runuser -u nobody -- runwatch doctor | grep -c '^WRONG')" = 0 ]

# Reload.
printf '[[run]]\nid = "more"\n' >>"$config"
check "it reloads" systemctl reload runwatch
check "a reload is done when systemctl reload returns" runwatch show more
await "the added run" has "^more .*PROCESSING" runs
cp "$config" "$config.good"
echo 'nonsense = 1' >>"$config"
check "systemctl reload reports a refusal" is 1 sh -c 'systemctl reload runwatch 2>/dev/null; echo $?'
check "it goes on" systemctl is-active runwatch
await "the refusal in the journal" has "the configuration is refused, and the old one kept" journal
check "the status line says so" has "configuration is refused" property StatusText
check "runwatch reload says so" is 78 sh -c 'runwatch reload 2>/dev/null; echo $?'
check "the old configuration is kept" has "^more .*PROCESSING" runs
mv "$config.good" "$config"
check "it reloads again" systemctl reload runwatch
await "the status line" is "3 runs, 1 finished, 0 deliveries pending" property StatusText
sign_of_life=$(property WatchdogTimestampMonotonic)
has_given_another() { [ "$(property WatchdogTimestampMonotonic)" != "$sign_of_life" ]; }
await "a sign of life" has_given_another
check "it was one and the same process" is "$first" property MainPID

# Stopped by a signal that no process can catch, it gives no sign of life.
check "a run is added by hand" runwatch add other
kill -STOP "$(property MainPID)"
rm /run/runwatch/runwatch.sock
check "doctor misses the socket" has "^WRONG   daemon: runwatch.service is active, but its socket is missing" doctor
await "a restart" restarted 1
await "the word of the watchdog" has "Failed with result .watchdog." journal

# Killed.
kill -KILL "$(property MainPID)"
await "another restart" restarted 2
check "it knows what has ended" has "^short .*SUCCEEDED" runs
check "it knows what was added by hand" has "^other " runs

# The runs end while the key is rotated.
simulate second-key id=long,duration=0s id=short,duration=0s id=more,duration=0s,end=failed id=other,duration=0s,end=canceled
await "the old key to be refused" has "^long .*401" runs
install -m 600 /dev/stdin /etc/runwatch/api-key <<<"second-key"
systemctl restart runwatch || fail "it does not restart"
await "the end of the runs" is "4 runs, 4 finished, 0 deliveries pending" property StatusText
check "every end is told once" is "run.canceled other
run.failed more
run.succeeded long
run.succeeded short" sort "$state/told"

# Loosened as docs/service.md has it: a key that can be rotated without a restart, and a socket for a group.
groupadd --system key-readers
groupadd --system operators
useradd --gid operators ada
install -m 640 -g key-readers /dev/stdin /etc/runwatch/rotated-key <<<"third-key"
cat >>"$unit.d/test.conf" <<'DROPIN'
LoadCredential=
LoadCredential=webhook-secret:/etc/runwatch/webhook-secret
SupplementaryGroups=key-readers
Group=operators
DROPIN
sed -i 's|^\[api\]|&\napi_key_file = "/etc/runwatch/rotated-key"|' "$config"
printf '[daemon]\nsocket_mode = "0660"\n[[run]]\nid = "last"\n' >>"$config"
systemctl daemon-reload
simulate "fourth-key" id=last,duration=0s
systemctl restart runwatch || fail "it does not start with a key file"
check "the group can use the socket" has "^last " runuser -u ada -- runwatch list
check "others cannot" is 69 sh -c 'runuser -u nobody -- runwatch list 2>/dev/null; echo $?'
await "the third key to be refused" has "^last .*401" runs
echo "fourth-key" >/etc/runwatch/rotated-key
await "the fourth key to be read" [ -e "$state/begun" ]
check "that took no restart" is 0 property NRestarts

# Stop, while the program of a channel is at work.
began=$SECONDS
check "it stops" systemctl stop runwatch
check "it stops at once" [ $((SECONDS - began)) -lt 6 ]
check "the program was let finish" is "run.succeeded last" tail -n 1 "$state/told"
check "the socket is gone" [ ! -e /run/runwatch ]
check "the state is not" [ -s "$state/runwatch.db" ]
check "it stopped well" is "inactive success 0" echo "$(property ActiveState) $(property Result) $(property ExecMainStatus)"
check "doctor says that it does not run" has "^-       daemon: runwatch.service does not run" doctor
check "and what to do" has "start it: systemctl enable --now runwatch" doctor
