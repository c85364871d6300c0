# shellcheck shell=bash
# LMO's own processes in the lab: certificates, configuration, start and stop.

PKI=$BIG/pki
LAB_TLS=${LMO_LAB_TLS:-yes}

lmo_built() { [[ -x $BUILD/bin/lmod && -x $BUILD/bin/lmo-worker && -x $BUILD/bin/lmo ]]; }
lmo_enabled() { [[ -e $RUN/lmo-enabled ]]; }

# Issues what each process needs, once per lab, and installs on every node
# only that node's own.
lmo_pki() {
    local node dir
    if [[ ! -e $PKI/ca.pem ]]; then
        install -d -m 700 "$PKI"
        quietly "$BUILD/bin/lmo" pki init "$PKI"
    fi
    lmo_issue coordinator lab --address "$UNDERLAY.${OCTET[ctl]}" --address 127.0.0.1
    lmo_issue operator lab
    lmo_issue control-plane lab
    lmo_issue viewer lab
    for node in "${NODES[@]}"; do
        lmo_issue worker "$node" --address "$UNDERLAY.${OCTET[$node]}"
        dir=$BIG/hosts/$node/etc/lmo/pki
        install -d -m 700 "$dir"
        install -m 644 "$PKI"/{ca.pem,crl.pem,permit.pub} "$dir/"
        install -m 644 "$PKI/issued/worker-$node.pem" "$dir/host.pem"
        install -m 600 "$PKI/issued/worker-$node.key" "$dir/host.key"
    done
    dir=$BIG/hosts/ctl/etc/lmo/pki
    install -m 600 "$PKI/permit.key" "$dir/"
    install -m 644 "$PKI/issued/coordinator-lab.pem" "$dir/coordinator.pem"
    install -m 600 "$PKI/issued/coordinator-lab.key" "$dir/coordinator.key"
}

lmo_issue() {
    local role=$1 name=$2
    shift 2
    if [[ -e $PKI/issued/$role-$name.pem ]]; then return 0; fi
    quietly "$BUILD/bin/lmo" pki issue --dir "$PKI" --role "$role" --name "$name" "$@"
}

# quietly COMMAND...: its output only if it fails.
quietly() {
    local output
    output=$("$@" 2>&1) || die "$*: $output"
}

# Configuration files are written at every "up", whether or not LMO is built.
lmo_configure() {
    local node address
    for node in "${NODES[@]}"; do
        address=$UNDERLAY.${OCTET[$node]}
        {
            cat <<END
[worker]
host = $node
listen = $address:7443
state_dir = /var/lib/lmo-worker
log_level = ${LMO_LAB_LOG_LEVEL:-info}

[tls]
ca = /etc/lmo/pki/ca.pem
cert = /etc/lmo/pki/host.pem
key = /etc/lmo/pki/host.key
crl = /etc/lmo/pki/crl.pem
permit_key = /etc/lmo/pki/permit.pub
END
            if [[ $node == ctl ]]; then lmo_configure_fabric; else lmo_configure_hypervisor "$node"; fi
        } >"$BIG/hosts/$node/etc/lmo/worker.conf"
    done
    cat >"$BIG/hosts/ctl/etc/lmo/lmod.conf" <<END
[coordinator]
listen = $UNDERLAY.${OCTET[ctl]}:8443
state_dir = /var/lib/lmo
# A lab is what faults are made in on purpose (tests/faults).
pre_production = yes
log_level = ${LMO_LAB_LOG_LEVEL:-info}

[limits]
link = migration
min_share = $MIN_SHARE
# All hosts of a lab share one machine's memory.
memory_keep_free = $((256 << 20))
memory_overhead = $((128 << 20))

[tls]
ca = /etc/lmo/pki/ca.pem
cert = /etc/lmo/pki/coordinator.pem
key = /etc/lmo/pki/coordinator.key
crl = /etc/lmo/pki/crl.pem
permit_key = /etc/lmo/pki/permit.key
END
}

lmo_configure_hypervisor() {
    local scheme=tls
    if [[ $LAB_TLS == no ]]; then scheme=tcp; fi
    cat <<END

[hypervisor]
driver = libvirt
uri = qemu:///system
peer_uri = qemu+$scheme://$UNDERLAY.${OCTET[$1]}/system
tls = $LAB_TLS

[link migration]
address = $MIGRATION.${OCTET[$1]}
rate = $LINK_RATE

[network]
driver = ovn
chassis = $1
ovsdb = unix:/run/openvswitch/db.sock
bridge = br-int
openflow = unix:/run/openvswitch/br-int.mgmt
fabric = lab
END
}

lmo_configure_fabric() {
    cat <<END

[fabric]
driver = ovn
name = lab
northbound = $OVN_NB
southbound = $OVN_SB

[volume]
driver = nbd
service = lab-nbd
address = $NBD_ADDRESS,$PROXY_ADDRESS
qmp = /run/lmo-volumes/qsd.sock
END
}

# shellcheck disable=SC2016 # expanded inside
port_accepts() { in_host "$1" bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3"; }

# worker_start HOST: root with what of root's powers the unit file leaves it, so that whatever the lab shows is shown with
# those. (nice stands for LimitNICE=: without the right to it the program runs all the same.)
worker_start() {
    local unit=$REPO_DIR/deploy/systemd/lmo-worker.service powers
    powers=$(sed -n 's/^CapabilityBoundingSet=//p' "$unit" | tr 'A-Z ' 'a-z,' | sed 's/cap_/+/g')
    host_spawn "$1" worker /var/log/lmo/worker.log nice -n -10 \
        setpriv --no-new-privs --inh-caps=-all --bounding-set="-all,$powers" \
        "$BUILD/bin/lmo-worker" --config /etc/lmo/worker.conf
    wait_for 30 "the worker on $1 (log: $BIG/hosts/$1/var/log/lmo/worker.log)" \
        port_accepts "$1" "$UNDERLAY.${OCTET[$1]}" 7443
}

lmod_start() {
    host_spawn ctl lmod /var/log/lmo/lmod.log "$BUILD/bin/lmod" --config /etc/lmo/lmod.conf
    wait_for 30 "lmod (log: $BIG/hosts/ctl/var/log/lmo/lmod.log)" \
        port_accepts ctl "$UNDERLAY.${OCTET[ctl]}" 8443
}

# process_stop RECORD: asks it to end, then insists.
process_stop() {
    kill_recorded "$1" TERM
    local deadline=$((EPOCHSECONDS + 15))
    until pid_gone "$1" || ((EPOCHSECONDS > deadline)); do sleep 0.05; done
    if pid_alive "$1"; then say "$(basename "$1" .pid) did not end within 15 s of SIGTERM: killing it"; fi
    kill_recorded "$1"
}

# lmo_cli ARGS: the command line inside ctl, as an operator unless told otherwise.
lmo_cli() {
    local role=${LMO_LAB_ROLE:-operator}
    in_host ctl env LMO_URL="https://$UNDERLAY.${OCTET[ctl]}:8443" LMO_CA="$PKI/ca.pem" \
        LMO_CERT="$PKI/issued/$role-lab.pem" LMO_KEY="$PKI/issued/$role-lab.key" \
        "$BUILD/bin/lmo" "$@"
}

lmo_start() {
    local node
    lmo_pki
    all worker_start -- "${NODES[@]}"
    lmod_start
    for node in "${NODES[@]}"; do
        quietly lmo_cli host add "$node" --url "https://$UNDERLAY.${OCTET[$node]}:7443"
    done
}

# lmo_volume_op GUEST_UUID KIND REQUEST_JSON: one op of the volume worker, under
# the coordinator's certificate, as a cloud's volume manager would send it;
# prints the reply. The fields are those of proto/op.h. An order about a volume
# names no guest: a guest's epochs are its migrations'.
lmo_volume_op() {
    local id reply
    id=lab-$2-$EPOCHSECONDS-$$-$RANDOM
    reply=$(jq -nc --arg id "$id" --arg kind "$2" --argjson request "$3" \
        '{id: $id, kind: $kind, vm: "", epoch: 1} + $request' |
        in_host ctl curl -sS --max-time 30 --cacert "$PKI/ca.pem" \
            --cert "$PKI/issued/coordinator-lab.pem" --key "$PKI/issued/coordinator-lab.key" \
            -X PUT -H 'Content-Type: application/json' --data-binary @- \
            "https://$UNDERLAY.${OCTET[ctl]}:7443/v1/ops/$id") || die "$2: the volume worker did not answer"
    if [[ $(jq -r '.state // empty' <<<"$reply") != "done" ]]; then die "$2: $reply"; fi
    printf '%s\n' "$reply"
}
