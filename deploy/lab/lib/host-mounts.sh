#!/usr/bin/env bash
# host-mounts.sh PRIVATE_DIR CACHE LAB: runs as root inside a new host's
# namespaces and makes its file system its own: /run is empty, /etc is a copy,
# /var/lib, /var/log and /var/cache are empty directories under PRIVATE_DIR.
# Nothing outside PRIVATE_DIR is written; everything else is shared.
set -euo pipefail

private=$1 cache=$2 lab=$3
host=$(hostname)

mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
mkdir -p /run/lock

if [[ ! -d $private/etc ]]; then
    mkdir -p "$private"/var/{lib,log,cache}
    cp -a /etc "$private/etc.new"
    rm -rf "$private"/etc.new/{libvirt,openvswitch,ovn,lmo,hosts,hostname,machine-id}
    mkdir -p "$private"/etc.new/{libvirt/qemu,openvswitch,ovn,lmo/pki}
    echo "$host" >"$private/etc.new/hostname"
    printf '%s/%s' "$lab" "$host" | md5sum | cut -c1-32 >"$private/etc.new/machine-id"
    cat >"$private/etc.new/hosts" <<END
127.0.0.1 localhost
10.77.0.10 ctl
10.77.0.11 hv1
10.77.0.12 hv2
10.77.0.13 hv3
END
    # libvirt looks its compiled-in user up even when it is told to use another.
    if ! grep -q '^libvirt-qemu:' "$private/etc.new/passwd"; then
        echo 'libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin' >>"$private/etc.new/passwd"
        echo 'libvirt-qemu:x:64055:' >>"$private/etc.new/group"
    fi
    if ! grep -q '^kvm:' "$private/etc.new/group"; then
        echo 'kvm:x:64056:' >>"$private/etc.new/group"
    fi
    mv "$private/etc.new" "$private/etc"
fi
mkdir -p "$private"/var/lib/{libvirt/images,openvswitch,ovn,lmo,lmo-worker} \
    "$private"/var/log/{libvirt/qemu,openvswitch,ovn,lmo} \
    "$private"/var/cache/{libvirt,lmo-lab} "$cache"

mount --bind "$cache" "$private/var/cache/lmo-lab"
for dir in /etc /var/lib /var/log; do
    mount --bind "$private$dir" "$dir"
done
mount --rbind "$private/var/cache" /var/cache
mkdir -p /run/openvswitch /run/ovn /run/libvirt /run/lmo-volumes
