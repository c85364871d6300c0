# shellcheck shell=bash disable=SC2034 # used by those who source it
# Names, paths and the few primitives that everything else in the lab uses.

LAB=${LMO_LAB:-lab0}
if [[ ! $LAB =~ ^[a-z][a-z0-9-]{0,15}$ ]]; then
    echo "lab: LMO_LAB='$LAB' is not a lab name (a-z, 0-9, -; at most 16)" >&2
    exit 2
fi

LAB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REPO_DIR=$(cd "$LAB_DIR/../.." && pwd)
BUILD=$(realpath -m "${LMO_BUILD:-$REPO_DIR/build/release}")
RUN=/run/lmo-lab/$LAB          # small state: gone with "down"
BIG=/var/tmp/lmo-lab/$LAB      # volumes, hosts' private directories: gone with "down"
QEMU=${LMO_LAB_QEMU:-/usr/bin/qemu-system-x86_64}
CACHE=/var/cache/lmo-lab       # kernel, initramfs, helper programs: kept

HYPERVISORS=(hv1 hv2 hv3)
NODES=(ctl "${HYPERVISORS[@]}") # what runs a worker
HOSTS=(fabric "${NODES[@]}" client) # everything with namespaces of its own

# Last octet of a node in each of the lab's networks.
declare -A OCTET=([ctl]=10 [hv1]=11 [hv2]=12 [hv3]=13)
UNDERLAY=10.77.0  # control traffic: libvirt, workers, volumes, OVN databases
MIGRATION=10.78.0 # guest memory
TUNNEL=10.79.0    # OVN's encapsulated guest traffic
TUNNEL_MTU=1700
LINK_RATE=${LMO_LAB_LINK_RATE:-$((1 << 30))} # of the migration network, bytes per second: what the workers are told
MIN_SHARE=$((8 << 20))                        # with less a migration does not start
GUESTNET=192.168.50
CLIENT_IP=$GUESTNET.100
CLIENT_HOST=hv3
CLIENT_MAC=52:54:00:00:01:00

NBD_ADDRESS=$UNDERLAY.${OCTET[ctl]}:10809
PROXY_ADDRESS=$UNDERLAY.${OCTET[ctl]}:10810 # the delaying proxy before it, where one is started
OVN_NB=tcp:$UNDERLAY.${OCTET[ctl]}:6641
OVN_SB=tcp:$UNDERLAY.${OCTET[ctl]}:6642

say() { printf 'lab: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

usage_error() {
    say "$* (see lab --help)"
    exit 2
}

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds; dies at the deadline.
wait_for() {
    local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((${EPOCHREALTIME/./} > deadline)); then die "gave up waiting for $what"; fi
        sleep 0.03
    done
}

# start_time PID: field 22 of its stat; fails for the dead and for zombies.
start_time() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    stat=${stat##*) }
    if [[ $stat == [ZX]* ]]; then return 1; fi
    # shellcheck disable=SC2086 # words are wanted; the state is the first of them
    set -- $stat
    echo "${20}"
}

# pid_alive FILE: is the process that FILE ("PID START") names still that one?
pid_alive() {
    local pid start
    { read -r pid start <"$1"; } 2>/dev/null || return 1
    [[ $(start_time "$pid") == "$start" ]]
}

# kill_recorded FILE [SIGNAL]: signals exactly the recorded process, and for
# SIGKILL waits until it is gone and removes the record.
kill_recorded() {
    local pid signal=${2:-KILL}
    if pid_alive "$1"; then
        read -r pid _ <"$1"
        kill "-$signal" "$pid" 2>/dev/null || true
        if [[ $signal == KILL ]]; then wait_for 20 "process $pid to end" pid_gone "$1"; fi
    fi
    if [[ $signal == KILL ]]; then rm -f "$1"; fi
}

pid_gone() { ! pid_alive "$1"; }

# uuid_of TEXT: the same UUID for the same text, in every run.
uuid_of() {
    local h
    h=$(printf 'lmo-lab/%s/%s' "$LAB" "$1" | sha1sum)
    printf '%s-%s-5%s-a%s-%s\n' "${h:0:8}" "${h:8:4}" "${h:13:3}" "${h:17:3}" "${h:20:12}"
}

is_node() { [[ " ${NODES[*]} " == *" $1 "* ]]; }
is_hypervisor() { [[ " ${HYPERVISORS[*]} " == *" $1 "* ]]; }
require_up() { if ! pid_alive "$RUN/host/ctl.pid"; then die "lab '$LAB' is not up (lab up)"; fi; }
