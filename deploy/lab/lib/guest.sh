# shellcheck shell=bash
# Guests: what a control plane would do before anything is ever migrated, that
# is a volume, a logical port and a libvirt domain. RUN/guests/NAME.json holds
# what was asked for; where a guest is now is always looked up.

guest_record() { echo "$RUN/guests/$1.json"; }

guest_get() {
    local file
    file=$(guest_record "$1")
    if [[ ! -e $file ]]; then die "no guest '$1' in lab '$LAB'"; fi
    jq -r "$2" "$file"
}

guest_names() {
    local file
    for file in "$RUN"/guests/*.json; do
        if [[ -e $file ]]; then basename "$file" .json; fi
    done
}

# Hypervisors on which the domain is defined or running now.
guest_hosts() {
    local host
    for host in "${HYPERVISORS[@]}"; do
        if virsh_on "$host" domid "$1" >/dev/null 2>&1; then echo "$host"; fi
    done
}

# Lowest address of the guests' network that no guest has.
guest_free_octet() {
    local octet taken
    taken=" $(for name in $(guest_names); do guest_get "$name" .ip; done | tr '\n' ' ')"
    for ((octet = 11; octet < 100; octet++)); do
        if [[ $taken != *" $GUESTNET.$octet "* ]]; then
            echo "$octet"
            return 0
        fi
    done
    die "no address left for another guest"
}

# guest_disk_xml EXPORT PORT TARGET: where the disk lives depends on who reads it:
# each host has an export of its own.
guest_disk_xml() {
    cat <<END
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none' error_policy='stop'/>
      <source protocol='nbd' name='$1'>
        <host name='${NBD_ADDRESS%:*}' port='$2'/>
      </source>
      <target dev='$3' bus='virtio'/>
    </disk>
END
}

LOCAL_DISKS=/var/lib/libvirt/images # on each host a directory of its own

# guest_local_disk_xml NAME: a file on the host, for migrations that copy storage.
guest_local_disk_xml() {
    cat <<END
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none' error_policy='stop'/>
      <source file='$LOCAL_DISKS/$1-l0.raw'/>
      <target dev='vdb' bus='virtio'/>
    </disk>
END
}

# guest_xml NAME EXPORT EXPORT2: the domain (no export: no such disk). Checksum offload is off because the
# userspace datapath forwards frames as they are.
guest_xml() {
    local record kernel
    record=$(guest_record "$1")
    kernel=$(kernel_dir)
    cat <<END
<domain type='qemu'>
  <name>$1</name>
  <uuid>$(jq -r .uuid "$record")</uuid>
  <memory unit='MiB'>$(jq -r .memory_mib "$record")</memory>
  <vcpu>$(jq -r .vcpus "$record")</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <kernel>$kernel/vmlinuz</kernel>
    <initrd>$(initramfs)</initrd>
    <cmdline>$(jq -r .cmdline "$record")</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>$QEMU</emulator>
$(if [[ -n $2 ]]; then guest_disk_xml "$2" "$(jq -r .volume_port "$record")" vda; fi)
$(if [[ -n $3 ]]; then guest_disk_xml "$3" "$(jq -r .volume_port "$record")" vdc; fi)
$(if (($(jq -r .local_disk_mib "$record") > 0)); then guest_local_disk_xml "$1"; fi)
    <interface type='bridge'>
      <mac address='$(jq -r .mac "$record")'/>
      <source bridge='br-int'/>
      <virtualport type='openvswitch'>
        <parameters interfaceid='$(jq -r .port "$record")'/>
      </virtualport>
      <model type='virtio'/>
      <driver name='qemu'>
        <host csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off' mrg_rxbuf='off'/>
        <guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/>
      </driver>
    </interface>
    <serial type='file'>
      <source path='/var/log/libvirt/qemu/$1-console.log' append='on'/>
      <target port='0'/>
    </serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
END
}

# guest_alive NAME: does its stream advance, as seen from the client?
guest_alive() {
    # shellcheck disable=SC2016 # expanded inside
    in_host client timeout 5 bash -c \
        'exec 3<>/dev/tcp/$0/7000 && read -r _ <&3 && read -r a _ <&3 && read -r b _ <&3 && ((b == a + 1))' \
        "$(guest_get "$1" .ip)" 2>/dev/null
}

guest_create() {
    local name='' host=hv1 memory=256 vcpus=1 dirty=0 region='' disk=64 second_disk=0 local_disk=0 period=10 stream=5 state=running persistent=true wait=1
    local volume_port=${NBD_ADDRESS#*:}
    while (($# > 0)); do
        case $1 in
        --host) host=$2 && shift ;;
        --memory) memory=$2 && shift ;;
        --vcpus) vcpus=$2 && shift ;;
        --dirty-rate) dirty=$2 && shift ;;
        --dirty-region) region=$2 && shift ;;
        --disk) disk=$2 && shift ;;
        --second-disk) second_disk=$2 && shift ;;
        --local-disk) local_disk=$2 && shift ;;
        --disk-period) period=$2 && shift ;;
        --stream-period) stream=$2 && shift ;;
        --no-stream) stream='' ;;
        --volume-port) volume_port=$2 && shift ;;
        --paused) state=paused ;;
        --shut-off) state=shut-off ;;
        --transient) persistent=false ;;
        --no-wait) wait= ;;
        -*) usage_error "guest create: unknown option '$1'" ;;
        *) if [[ -z $name ]]; then name=$1; else usage_error "guest create: one name, not '$name' and '$1'"; fi ;;
        esac
        shift
    done
    if [[ ! $name =~ ^[a-z][a-z0-9-]{0,30}$ ]]; then usage_error "guest create: '$name' is not a guest name"; fi
    is_hypervisor "$host" || usage_error "guest create: no hypervisor '$host'"
    require_up
    if [[ -e $(guest_record "$name") ]]; then die "guest '$name' exists already"; fi

    local uuid octet hex ip first_export='' second_export='' volume='' second_volume=''
    uuid=$(uuid_of "guest/$name")
    octet=$(guest_free_octet)
    ip=$GUESTNET.$octet
    hex=$(uuid_of "mac/$name")
    if ((disk > 0)); then volume=$name-d0; fi
    if ((second_disk > 0)); then second_volume=$name-d1; fi
    mkdir -p "$RUN/guests"
    jq -n --arg name "$name" --arg uuid "$uuid" --arg port "$(uuid_of "port/$name")" \
        --arg mac "52:54:00:${hex:0:2}:${hex:2:2}:${hex:4:2}" --arg ip "$ip" --arg host "$host" \
        --arg volume "$volume" --arg volume2 "$second_volume" --arg state "$state" \
        --argjson memory "$memory" --argjson vcpus "$vcpus" --argjson disk "$disk" --argjson local_disk "$local_disk" \
        --argjson volume_port "$volume_port" --argjson persistent "$persistent" \
        --argjson stream "$([[ -n $stream ]] && echo true || echo false)" \
        --arg cmdline "console=ttyS0 quiet panic=-1 no_timer_check tsc=unstable clocksource=${LMO_LAB_CLOCKSOURCE:-acpi_pm} lab.name=$name lab.ip=$ip/24 lab.stream=$stream lab.disk=$period lab.dirty=$dirty:${region:-$((memory / 2))}" \
        '{name: $name, uuid: $uuid, port: $port, mac: $mac, ip: $ip, first_host: $host,
          memory_mib: $memory, vcpus: $vcpus, disk_mib: $disk, local_disk_mib: $local_disk, volume: $volume, volume2: $volume2, volume_port: $volume_port,
          state: $state, persistent: $persistent, stream: $stream, cmdline: $cmdline}' >"$(guest_record "$name")"

    if [[ -n $volume ]]; then first_export=$(volume_provision "$uuid" "$volume" "$disk" "$host"); fi
    if [[ -n $second_volume ]]; then second_export=$(volume_provision "$uuid" "$second_volume" "$second_disk" "$host"); fi
    if ((local_disk > 0)); then
        in_host "$host" truncate -s "${local_disk}M" "$LOCAL_DISKS/$name-l0.raw"
    fi
    port_create "$name" "$host"
    guest_xml "$name" "$first_export" "$second_export" >"$RUN/guests/$name.xml"
    virsh_on "$host" define "/dev/stdin" <"$RUN/guests/$name.xml" >/dev/null
    if [[ $state == shut-off ]]; then return 0; fi
    # The address may have been another guest's: its MAC would be asked for half a minute longer.
    in_net client ip neighbour flush to "$ip" >/dev/null 2>&1 || true
    virsh_on "$host" start "$name" >/dev/null
    if [[ -n $wait && -n $stream ]] || [[ $state == paused ]]; then
        wait_for 90 "guest $name to answer" guest_alive "$name"
    fi
    if [[ $state == paused ]]; then virsh_on "$host" suspend "$name" >/dev/null; fi
    if [[ $persistent == false ]]; then virsh_on "$host" undefine "$name" >/dev/null; fi
}

# guest_start NAME: one that was created shut off, on the host that has its definition.
guest_start() {
    local host record
    record=$(guest_record "$1")
    host=$(guest_hosts "$1")
    if [[ ! $host =~ ^hv[0-9]+$ ]]; then die "guest '$1' is defined on '${host:-no host}'"; fi
    in_net client ip neighbour flush to "$(guest_get "$1" .ip)" >/dev/null 2>&1 || true
    if [[ $(virsh_on "$host" domstate "$1") != running* ]]; then virsh_on "$host" start "$1" >/dev/null; fi
    jq '.state = "running"' "$record" >"$record.new"
    mv "$record.new" "$record"
    wait_for 90 "guest $1 to answer" guest_alive "$1"
}

# guest_destroy NAME: wherever it is by now, and everything that came with it.
guest_destroy() {
    local host volume
    for host in $(guest_hosts "$1"); do
        virsh_on "$host" destroy "$1" >/dev/null 2>&1 || true
        virsh_on "$host" undefine "$1" >/dev/null 2>&1 || true
    done
    if [[ -n $(guest_hosts "$1") ]]; then die "guest '$1' is still defined on $(guest_hosts "$1")"; fi
    in_host ctl ovn-nbctl --if-exists lsp-del "$(guest_get "$1" .port)"
    for volume in $(guest_get "$1" '.volume, .volume2 // ""'); do
        volume_retire "$(guest_get "$1" .uuid)" "$volume"
    done
    rm -f "$BIG"/hosts/hv*"$LOCAL_DISKS/$1-l0.raw" "$(guest_record "$1")" "$RUN/guests/$1.xml"
}

# guest_resume NAME: after its disk failed (error_policy='stop' pauses it), or
# after its owner paused it.
guest_resume() {
    local host
    for host in $(guest_hosts "$1"); do
        if [[ $(virsh_on "$host" domstate "$1") == paused* ]]; then virsh_on "$host" resume "$1" >/dev/null; fi
    done
}

# port_create NAME HOST: its logical port, delivered to HOST only.
port_create() {
    local port
    port=$(guest_get "$1" .port)
    in_host ctl ovn-nbctl --may-exist lsp-add ls0 "$port" -- \
        lsp-set-addresses "$port" "$(guest_get "$1" '"\(.mac) \(.ip)"')" -- \
        lsp-set-options "$port" "requested-chassis=$2"
}

guest_list() {
    local name host state
    printf '%-12s %-6s %-10s %-15s %-6s %s\n' NAME HOST STATE ADDRESS MEMORY UUID
    for name in $(guest_names); do
        for host in $(guest_hosts "$name") none; do
            if [[ $host == none && -n ${state:-} ]]; then break; fi
            state=missing
            if [[ $host != none ]]; then state=$(virsh_on "$host" domstate "$name" | head -n1); fi
            printf '%-12s %-6s %-10s %-15s %-6s %s\n' "$name" "$host" "${state// /-}" \
                "$(guest_get "$name" .ip)" "$(guest_get "$name" .memory_mib)" "$(guest_get "$name" .uuid)"
        done
        state=
    done
}
