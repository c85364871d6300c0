# shellcheck shell=bash
# libvirt on the hypervisors.

# libvirt asks a silent peer COUNT times, INTERVAL seconds apart, and gives up
# after INTERVAL x (COUNT + 1). Its own default, 5 x 6 = 30 s, is what a lost
# peer costs in a migration; the lab's is 1 x 4 = 4 s.
libvirt_keepalive() {
    case ${LMO_LAB_KEEPALIVE:-1x3} in
    default) echo 5 5 ;;
    *x*) echo "${LMO_LAB_KEEPALIVE:-1x3}" | tr x ' ' ;;
    *) die "LMO_LAB_KEEPALIVE is 'default' or INTERVALxCOUNT, e.g. 1x3" ;;
    esac
}

# libvirt_configure HOST: its /etc/libvirt, seen from outside.
libvirt_configure() {
    local dir=$BIG/hosts/$1/etc/libvirt interval count
    read -r interval count < <(libvirt_keepalive)
    cat >"$dir/libvirtd.conf" <<END
# TLS is what LMO uses (certificates: below /etc/pki). Plain TCP without authentication is for plain-migrate and a look by
# hand, on a network that ends in this machine.
listen_tls = 1
listen_tcp = 1
listen_addr = "$UNDERLAY.${OCTET[$1]}"
auth_tcp = "none"
auth_unix_rw = "none"
# libvirt refuses to migrate to a host with its own UUID.
host_uuid = "$(uuid_of "host/$1")"
# Connections that others opened to this daemon.
keepalive_interval = $interval
keepalive_count = $count
log_level = 3
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
END
    cat >"$dir/qemu.conf" <<END
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "logd"
# Connections that this daemon opens to another one for a migration.
keepalive_interval = $interval
keepalive_count = $count
END
    echo 'log_level = 3' >"$dir/virtlogd.conf"
    : >"$dir/libvirt.conf"
}

# libvirt_certificates HOST: what its libvirt and QEMU show each other (qemu+tls://, VIR_MIGRATE_TLS), made by `lmo pki
# libvirt`. Without LMO: the same names, made by openssl.
libvirt_certificates() {
    local tree=$BIG/hosts/$1/etc/pki
    local addresses=("$1" "$UNDERLAY.${OCTET[$1]}" "$MIGRATION.${OCTET[$1]}")
    install -d -m 755 "$tree"
    if [[ -x $BUILD/bin/lmo ]]; then
        local renew=()
        if [[ -e $BIG/libvirt-pki/issued/libvirt-$1 ]]; then renew=(--renew); fi # the host was off
        quietly "$BUILD/bin/lmo" pki libvirt --dir "$BIG/libvirt-pki" "$1" "${renew[@]}" "${addresses[@]/#/--address=}"
        cp -r "$BIG/libvirt-pki/issued/libvirt-$1/." "$tree/"
        return
    fi
    local ca=$BIG/libvirt-ca dir=$tree/qemu
    install -d -m 700 "$dir" "$tree/CA" "$tree/libvirt/private"
    cp "$ca/ca-cert.pem" "$dir/"
    openssl req -x509 -CA "$ca/ca-cert.pem" -CAkey "$ca/ca-key.pem" -days 30 -subj "/CN=$1" \
        -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc \
        -addext "subjectAltName=DNS:$1,IP:$UNDERLAY.${OCTET[$1]},IP:$MIGRATION.${OCTET[$1]}" \
        -addext 'basicConstraints=critical,CA:FALSE' -addext 'extendedKeyUsage=serverAuth,clientAuth' \
        -keyout "$dir/server-key.pem" -out "$dir/server-cert.pem" 2>/dev/null
    cp "$dir/server-key.pem" "$dir/client-key.pem"
    cp "$dir/server-cert.pem" "$dir/client-cert.pem"
    cp "$ca/ca-cert.pem" "$tree/CA/cacert.pem"
    cp "$dir/server-cert.pem" "$tree/libvirt/servercert.pem"
    cp "$dir/server-cert.pem" "$tree/libvirt/clientcert.pem"
    cp "$dir/server-key.pem" "$tree/libvirt/private/serverkey.pem"
    cp "$dir/server-key.pem" "$tree/libvirt/private/clientkey.pem"
}

libvirt_ca() {
    if [[ -x $BUILD/bin/lmo ]]; then
        rm -rf "$BIG/libvirt-pki"
        quietly "$BUILD/bin/lmo" pki init "$BIG/libvirt-pki"
        return
    fi
    install -d -m 700 "$BIG/libvirt-ca"
    openssl req -x509 -days 30 -subj "/CN=LMO lab $LAB" -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
        -noenc -addext 'keyUsage=critical,keyCertSign' \
        -keyout "$BIG/libvirt-ca/ca-key.pem" -out "$BIG/libvirt-ca/ca-cert.pem" 2>/dev/null
}

libvirt_start() {
    # Records of a process that died leave its socket behind; libvirtd replaces it.
    host_spawn "$1" virtlogd /var/log/libvirt/virtlogd.out virtlogd
    wait_for 20 "virtlogd on $1" in_host "$1" test -S /run/libvirt/virtlogd-sock
    host_spawn "$1" libvirtd /var/log/libvirt/libvirtd.out libvirtd --listen
    wait_for 60 "libvirtd on $1" in_host "$1" virsh -q -c qemu:///system uri
    wait_for 20 "libvirtd's TCP port on $1" in_host "$1" \
        bash -c "exec 3<>/dev/tcp/$UNDERLAY.${OCTET[$1]}/16509"
}

# libvirt asks an emulator what it can do before it uses it the first time
# (most of a second); the answer is kept for all hosts, as libvirt itself keeps
# it, and libvirt checks whether it still fits.
libvirt_know_qemu() {
    local dir=$BIG/hosts/$1/var/cache/libvirt/qemu/capabilities kept=$CACHE/libvirt-capabilities
    if [[ -d $kept ]]; then
        mkdir -p "$dir"
        cp -n "$kept"/*.xml "$dir/"
    fi
    virsh_on "$1" domcapabilities --virttype qemu --emulatorbin "$QEMU" >/dev/null
    if [[ ! -d $kept ]] || [[ -n $(find "$dir" -newer "$kept" -name '*.xml' -print -quit) ]]; then
        mkdir -p "$kept"
        cp "$dir"/*.xml "$kept/"
    fi
}

libvirt_kill() { kill_recorded "$RUN/proc/$1.libvirtd.pid"; }

virsh_on() {
    local host=$1
    shift
    in_host "$host" virsh -q -c qemu:///system "$@"
}
