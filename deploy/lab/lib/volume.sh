# shellcheck shell=bash
# The volume service: qemu-storage-daemon on ctl. It starts empty; volumes and
# exports are added over QMP, by LMO's volume worker or (without LMO) from here.
#
# A QMP socket serves one client at a time, so there are two of them:
#   /run/lmo-volumes/qsd.sock  for the volume worker, which keeps it open
#   /run/lmo-volumes/lab.sock  for the lab and its checker

volume_service_start() {
    in_host ctl rm -f /run/lmo-volumes/qsd.sock /run/lmo-volumes/lab.sock
    mkdir -p "$BIG/volumes"
    host_spawn ctl volume-service /var/log/volume-service.log qemu-storage-daemon \
        --chardev socket,id=worker,path=/run/lmo-volumes/qsd.sock,server=on,wait=off \
        --monitor chardev=worker \
        --chardev socket,id=lab,path=/run/lmo-volumes/lab.sock,server=on,wait=off \
        --monitor chardev=lab \
        --nbd-server "addr.type=inet,addr.host=${NBD_ADDRESS%:*},addr.port=${NBD_ADDRESS#*:}"
    wait_for 20 "the volume service" in_host ctl bash -c "exec 3<>/dev/tcp/${NBD_ADDRESS/:/\/}"
    wait_for 20 "the volume service's monitor" in_host ctl test -S /run/lmo-volumes/lab.sock
}

# The delaying proxy of the tests, between guests created with --volume-port and
# the service. Its history of writes and its control socket are in
# BIG/hosts/ctl/var/log/volume-proxy.history and ctl:/run/lmo-volumes/proxy.ctl.
volume_proxy_start() {
    if [[ ! -x $BUILD/bin/nbdproxy ]]; then die "no nbdproxy in $BUILD/bin"; fi
    host_spawn ctl volume-proxy /var/log/volume-proxy.log "$BUILD/bin/nbdproxy" --listen "$PROXY_ADDRESS" \
        --upstream "$NBD_ADDRESS" --control /run/lmo-volumes/proxy.ctl --history /var/log/volume-proxy.history
    wait_for 20 "the volume proxy" in_host ctl test -S /run/lmo-volumes/proxy.ctl
}

volume_service_kill() { kill_recorded "$RUN/proc/ctl.volume-service.pid"; }

qmp() { in_host ctl /usr/bin/python3 "$LAB_DIR/lib/qmp.py" /run/lmo-volumes/lab.sock "$@"; }

# Without LMO the lab remembers which exports a restarted service must offer
# again: RUN/exports/NAME holds "VOLUME PATH".
volume_plain_node() {
    qmp --ignore "Duplicate nodes" "$(jq -nc --arg v "$1" --arg p "$2" '{execute: "blockdev-add",
        arguments: {driver: "raw", "node-name": $v, file: {driver: "file", filename: $p}}}')" >/dev/null
}

volume_plain_export() {
    qmp "$(jq -nc --arg v "$1" --arg e "$2" '{execute: "block-export-add",
        arguments: {type: "nbd", id: $e, "node-name": $v, name: $e, writable: true}}')" >/dev/null
}

# export_add VOLUME PATH EXPORT (plain mode)
export_add() {
    volume_plain_node "$1" "$2"
    volume_plain_export "$1" "$3"
    mkdir -p "$RUN/exports"
    printf '%s %s\n' "$1" "$2" >"$RUN/exports/$3"
}

# export_del EXPORT (plain mode): returns when the service has drained it.
export_del() {
    rm -f "$RUN/exports/$1"
    qmp --wait-export-deleted "$1" --ignore "is not found" "$(jq -nc --arg e "$1" \
        '{execute: "block-export-del", arguments: {id: $e, mode: "hard"}}')" >/dev/null
}

exports_restore() {
    local file volume path
    for file in "$RUN"/exports/*; do
        if [[ ! -e $file ]]; then continue; fi
        read -r volume path <"$file"
        export_add "$volume" "$path" "$(basename "$file")"
    done
}

# volume_provision GUEST_UUID VOLUME MIB HOST: a new volume with its first
# export; prints the export's name.
volume_provision() {
    local path=$BIG/volumes/$2.raw
    truncate -s "${3}M" "$path"
    if lmo_enabled; then
        lmo_volume_op "$1" volume_provision "$(jq -nc --arg v "$2" --arg p "$path" --arg h "$4" \
            '{volumes: [{volume: $v, target: "vda"}], path: $p, format: "raw", host: $h}')" | jq -er .export_name
    else
        export_add "$2" "$path" "$2.$4.e1"
        echo "$2.$4.e1"
    fi
}

# volume_retire GUEST_UUID VOLUME: no export and no volume afterwards.
volume_retire() {
    local name
    if lmo_enabled; then
        lmo_volume_op "$1" volume_retire "$(jq -nc --arg v "$2" '{volumes: [{volume: $v, target: "vda"}]}')" >/dev/null
    else
        for name in $(exports_of "$2"); do export_del "$name"; done
        qmp --ignore "Failed to find node" "$(jq -nc --arg v "$2" \
            '{execute: "blockdev-del", arguments: {"node-name": $v}}')" >/dev/null
    fi
    rm -f "$BIG/volumes/$2.raw"
}

# exports_of VOLUME: names of the exports that the service offers now.
exports_of() {
    qmp '{"execute": "query-block-exports"}' |
        jq -r --arg v "$1." '.[].id | select(startswith($v))'
}
