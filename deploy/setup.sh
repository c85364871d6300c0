#!/usr/bin/env bash
# Installs the Debian packages of deploy/packages.txt that are missing.
#
#   deploy/setup.sh           install what is missing (root, Debian)
#   deploy/setup.sh --check   only say what is missing; exit 1 if anything is
#   deploy/setup.sh --list    print the package names, one per line
#
# Packages that bring a service would start it. That is prevented for the time
# of the installation (policy-rc.d), so that nothing runs afterwards that did
# not run before. A second run with everything present does nothing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
list=$here/packages.txt
policy=/usr/sbin/policy-rc.d
policy_is_ours=

say() { printf 'setup: %s\n' "$*" >&2; }

# Names of the packages to install; those marked "unpack" are the lab's matter, those marked "unless:COMMAND" are not needed
# where there is such a command already, from wherever.
wanted() {
    local name mark
    while read -r name mark; do
        case $mark in
        unpack) ;;
        unless:*) command -v "${mark#unless:}" >/dev/null || printf '%s\n' "$name" ;;
        *) printf '%s\n' "$name" ;;
        esac
    done < <(awk '{ sub(/#.*/, "") } NF { print $1, $2 }' "$list")
}

# Those of them that are not installed.
missing() {
    local -A installed=()
    local name state
    while read -r name state; do
        if [[ $state == *' ok installed' ]]; then installed[$name]=1; fi
    done < <(dpkg-query -W -f '${Package} ${Status}\n' 2>/dev/null)
    while read -r name; do
        if [[ -z ${installed[$name]:-} ]]; then printf '%s\n' "$name"; fi
    done < <(wanted)
}

remove_policy() {
    if [[ -n $policy_is_ours ]]; then rm -f "$policy"; fi
}

# Denies every service start while packages are installed, unless the machine
# already has a policy of its own that does (any other policy is respected:
# then the installation is refused, because it could start services).
deny_service_starts() {
    if [[ -e $policy ]]; then
        local rc=0
        "$policy" lmo-probe start >/dev/null 2>&1 || rc=$?
        if ((rc == 101)); then return 0; fi
        say "$policy exists and allows services to start; not touching it."
        say "Install by hand: apt-get install --no-install-recommends $*"
        exit 1
    fi
    trap remove_policy EXIT
    policy_is_ours=1
    printf '#!/bin/sh\n# temporary, made by LMO deploy/setup.sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

case ${1:-} in
'' | --check) ;;
--list) wanted && exit 0 ;;
-h | --help)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
*)
    say "unknown argument '$1' (see --help)"
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null || [[ ! -e /etc/debian_version ]]; then
    say "this is not Debian. Needed, under the names that Debian gives them:"
    wanted | sed 's/^/  /' >&2
    exit 1
fi

mapfile -t packages < <(missing)
if ((${#packages[@]} == 0)); then
    exit 0
fi
if [[ ${1:-} == --check || $EUID -ne 0 ]]; then
    say "missing packages (run deploy/setup.sh as root to install them):"
    printf '  %s\n' "${packages[@]}" >&2
    exit 1
fi

deny_service_starts "${packages[@]}"
apt=(apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -y)
export DEBIAN_FRONTEND=noninteractive
say "installing ${#packages[@]} packages"
if ! "${apt[@]}" install --no-install-recommends "${packages[@]}" >/dev/null; then
    say "installation failed; refreshing the package lists and trying again"
    "${apt[@]}" update >/dev/null
    "${apt[@]}" install --no-install-recommends "${packages[@]}" >/dev/null
fi
mapfile -t packages < <(missing)
if ((${#packages[@]} > 0)); then
    say "still missing: ${packages[*]}"
    exit 1
fi
