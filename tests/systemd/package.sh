#!/usr/bin/env bash
# The Debian package, from its installation to its purge: packaging/checks/deb boots this.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

config=/etc/runwatch/config.toml
state=/var/lib/private/runwatch
export DEBIAN_FRONTEND=noninteractive
property() { systemctl show runwatch --property="$1" --value; }
apply() { dpkg "$@" </dev/null; }
paths() { find /usr /etc /var/lib -xdev -path /var/lib/dpkg -prune -o -name '*runwatch*' -print; }
echo '127.0.0.1 localhost' >/etc/hosts

check "it installs" apply --install /test/debs/runwatch.deb
check "it is not started" is inactive systemctl is-active runwatch
check "it is not enabled: it has no key yet" is disabled systemctl is-enabled runwatch
check "the unit has no mistakes" is "" systemd-analyze verify --man=no /usr/lib/systemd/system/runwatch.service
check "the user unit is there" [ -s /usr/lib/systemd/user/runwatch.service ]
check "the units start the installed program" \
    is 2 sh -c 'cat /usr/lib/systemd/*/runwatch.service | grep -c "^ExecStart=/usr/bin/runwatch daemon"'
for file in man/man1/runwatch.1.gz bash-completion/completions/runwatch zsh/vendor-completions/_runwatch \
    fish/vendor_completions.d/runwatch.fish doc/runwatch/copyright; do
    check "it installs $file" [ -s "/usr/share/$file" ]
done
check "the configuration is valid" runwatch config check "$config"
# shellcheck disable=SC2016
check "the configuration is a conffile" has "^ $config " dpkg-query -W -f '${Conffiles}\n' runwatch

# What an administrator does.
install -m 600 /dev/stdin /etc/runwatch/api-key <<<"a-key"
cat >"$config" <<'CONFIG'
[api]
base_url = "http://localhost:8400"
[poll]
initial_interval = "100ms"
max_interval = "200ms"
[[run]]
id = "long"
[[run]]
id = "short"
CONFIG
simulate "a-key" id=long,duration=1h id=short,duration=0s
check "it starts" systemctl enable --now runwatch
await "the end of a run" has "^short .*SUCCEEDED" runwatch list --all
check "a run is added by hand" runwatch add long --name mine
first=$(property MainPID)
sum=$(sha256sum <"$config")

check "it is upgraded" apply --install /test/debs/newer.deb
# shellcheck disable=SC2016
check "the new version is installed" has '[+]newer$' dpkg-query -W -f '${Version}\n' runwatch
check "the service runs" is active systemctl is-active runwatch
check "it is the new program" [ "$(property MainPID)" != "$first" ]
check "the configuration is kept" [ "$(sha256sum <"$config")" = "$sum" ]
check "the state is kept" has "^short .*SUCCEEDED" runwatch list --all
check "it is still enabled" is enabled systemctl is-enabled runwatch

check "it is removed" apply --remove runwatch
check "the program is gone" [ ! -e /usr/bin/runwatch ]
check "the service does not run" [ "$(systemctl is-active runwatch)" != active ]
check "a removal keeps the configuration" [ -s "$config" ]
check "a removal keeps the key" [ -s /etc/runwatch/api-key ]
check "a removal keeps the state" [ -s "$state/runwatch.db" ]
check "it is installed again" apply --install /test/debs/runwatch.deb
check "it starts again" systemctl start runwatch
check "it knows what has ended" has "^short .*SUCCEEDED" runwatch list --all

check "it is purged" apply --purge runwatch
check "nothing is left" is "" paths
