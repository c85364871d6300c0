# shellcheck shell=bash
# Hosts: namespaces around a process 1 (lib/hostns.c), and running things there.

# The helper that makes a host, compiled once and kept by content.
hostns_program() {
    local source=$LAB_DIR/lib/hostns.c hash out
    hash=$(sha256sum "$source")
    out=$CACHE/hostns-${hash:0:16}
    if [[ ! -x $out ]]; then
        mkdir -p "$CACHE"
        gcc -std=c17 -O2 -Wall -Wextra -Werror -o "$out.$$" "$source"
        mv "$out.$$" "$out"
    fi
    echo "$out"
}

host_pid() {
    local pid
    { read -r pid _ <"$RUN/host/$1.pid"; } 2>/dev/null || die "no host '$1' in lab '$LAB'"
    echo "$pid"
}

# host_create NAME: an empty host: namespaces, private directories, no network.
host_create() {
    mkdir -p "$RUN/host" "$BIG/hosts/$1"
    "$(hostns_program)" "$1" "$RUN/host/$1.pid" \
        /bin/bash "$LAB_DIR/lib/host-mounts.sh" "$BIG/hosts/$1" "$CACHE" "$LAB"
}

# host_kill NAME: power off. The kernel removes its network devices a moment
# after its last process; their other ends in the fabric go with them.
host_kill() {
    kill_recorded "$RUN/host/$1.pid"
    rm -f "$RUN/proc/$1".*.pid
    wait_for 20 "the network of $1 to go" host_unplugged "$1"
}

host_unplugged() { [[ $(in_net fabric ip -o link) != *" $1-"* ]]; }

# in_host NAME COMMAND...: in all of the host's namespaces, in the same
# directory if the host can see it.
in_host() {
    local pid
    pid=$(host_pid "$1")
    shift
    # shellcheck disable=SC2016 # expanded inside
    nsenter -t "$pid" -m -u -i -n -p -- /bin/sh -c \
        'cd "$0" 2>/dev/null || cd /; exec "$@"' "$PWD" "$@"
}

# in_net NAME COMMAND...: in the host's network namespace only, so that other
# hosts can be named by process id.
in_net() {
    local pid
    pid=$(host_pid "$1")
    shift
    nsenter -t "$pid" -n -- "$@"
}

# host_spawn HOST NAME LOG COMMAND...: starts a foreground program in HOST in
# the background and records its process as RUN/proc/HOST.NAME.pid.
host_spawn() {
    local host=$1 name=$2 log=$3 pid record=$RUN/proc/$1.$2.pid
    shift 3
    if pid_alive "$record"; then return 0; fi
    mkdir -p "$RUN/proc" "$BIG/hosts/$host$(dirname "$log")"
    # The shell inside execs the program only after this side has recorded
    # which process it is (as seen from outside).
    local go=$RUN/proc/$host.$name.go
    rm -f "$go"
    mkfifo "$go"
    pid=$(host_pid "$host")
    setsid nsenter -t "$pid" -m -u -i -n -p -- /bin/sh -c \
        'read -r _ <&3; exec 3<&-; exec "$@"' sh "$@" \
        3<>"$go" </dev/null >>"$BIG/hosts/$host$log" 2>&1 &
    local outer=$! child=
    until [[ -n $child ]]; do
        read -r child _ <"/proc/$outer/task/$outer/children" || true
        child=${child:-}
        if [[ -z $child ]] && ! kill -0 "$outer" 2>/dev/null; then die "could not start $name in $host"; fi
    done
    printf '%s %s\n' "$child" "$(start_time "$child")" >"$record"
    echo go >"$go"
    rm -f "$go"
    disown "$outer"
}

# Networks -----------------------------------------------------------------

# cable HOST IFNAME BRIDGE: a veth from HOST to a bridge of the fabric. Offload
# of checksums is off: the userspace datapath would forward them unfinished.
cable() {
    local end="$1-$2"
    in_net fabric ip link add "$end" type veth peer name "$2" netns "$(host_pid "$1")"
    in_net fabric ip link set "$end" master "$3" up
    in_net fabric ethtool -K "$end" tx off >/dev/null
    in_net "$1" ethtool -K "$2" tx off >/dev/null
    if [[ $3 == tun ]]; then # full-sized frames of guests, and what Geneve puts around them
        in_net fabric ip link set "$end" mtu "$TUNNEL_MTU"
        in_net "$1" ip link set "$2" mtu "$TUNNEL_MTU"
    fi
    in_net "$1" ip link set "$2" up
}

fabric_create() {
    local bridge
    in_net fabric ip link set lo up
    for bridge in under mig tun; do
        in_net fabric ip link add "$bridge" type bridge
        in_net fabric ip link set "$bridge" up
    done
}

# node_network HOST: its addresses in the underlay and the migration network;
# the tunnel network's interface belongs to Open vSwitch (ovn.sh).
node_network() {
    in_net "$1" ip link set lo up
    # A QEMU whose last memory is stuck on a cut network stands still, its guest paused, until TCP gives up: by default
    # that is minutes. 4 means some 6 s. See docs/libvirt.md.
    in_net "$1" sysctl -qw net.ipv4.tcp_retries2=4
    cable "$1" under0 under
    cable "$1" mig0 mig
    in_net "$1" ip address add "$UNDERLAY.${OCTET[$1]}/24" dev under0
    in_net "$1" ip address add "$MIGRATION.${OCTET[$1]}/24" dev mig0
    if is_hypervisor "$1"; then cable "$1" tun0 tun; fi
}
