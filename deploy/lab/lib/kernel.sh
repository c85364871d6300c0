# shellcheck shell=bash
# The guest's kernel (Debian's cloud kernel, downloaded and unpacked, never
# installed) and its initramfs (busybox and the programs in guest/). Both live
# in CACHE under names that are hashes of their content.

GUEST_MODULES=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci
    failover net_failover virtio_net virtio_blk)
GUEST_PROGRAMS=(dirty diskwriter streamd echod)

# Prints the directory with vmlinuz and modules/, fetching it the first time.
kernel_dir() {
    local package deb work dir
    if [[ -e $CACHE/kernel/vmlinuz ]]; then
        realpath "$CACHE/kernel"
        return 0
    fi
    mkdir -p "$CACHE"
    work=$(mktemp -d "$CACHE/fetch.XXXXXX")
    package=$(apt-cache depends linux-image-cloud-amd64 |
        awk '/Depends:.*linux-image-[0-9]/ { print $2; exit }')
    if [[ -z $package ]]; then die "no package linux-image-cloud-amd64 known; run apt-get update"; fi
    say "fetching the guest's kernel ($package)"
    (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package")
    deb=$(echo "$work"/*.deb)
    dpkg-deb -x "$deb" "$work/root"
    dir=$CACHE/kernel-$(sha256sum "$deb" | cut -c1-16)
    mkdir -p "$work/kernel/modules"
    mv "$work"/root/boot/vmlinuz-* "$work/kernel/vmlinuz"
    local module
    for module in "${GUEST_MODULES[@]}"; do
        find "$work/root/lib/modules" -name "$module.ko" -exec mv {} "$work/kernel/modules/" \;
    done
    printf '%s\n' "${GUEST_MODULES[@]}" >"$work/kernel/modules/order"
    rm -rf "$dir"
    mv "$work/kernel" "$dir"
    ln -sfn "$dir" "$CACHE/kernel"
    rm -rf "$work"
    echo "$dir"
}

# Prints the path of the initramfs, building it when anything in it changed.
initramfs() {
    local kernel hash out work program
    kernel=$(kernel_dir)
    hash=$(cat "$LAB_DIR"/guest/* "$LAB_DIR/lib/kernel.sh" /bin/busybox "$kernel"/modules/* |
        sha256sum | cut -c1-16)
    out=$CACHE/initramfs-$hash.cpio
    if [[ -e $out ]]; then
        echo "$out"
        return 0
    fi
    work=$(mktemp -d "$CACHE/initramfs.XXXXXX")
    mkdir -p "$work/root/bin"
    cp -r "$kernel/modules" "$work/root/modules"
    cp /bin/busybox "$work/root/bin/busybox"
    install -m 755 "$LAB_DIR/guest/init" "$work/root/init"
    ln -s busybox "$work/root/bin/sh"
    for program in "${GUEST_PROGRAMS[@]}"; do
        gcc -std=c17 -D_GNU_SOURCE -O2 -static -s -Wall -Wextra -Werror \
            -o "$work/root/bin/$program" "$LAB_DIR/guest/$program.c"
    done
    chmod -R go-w "$work/root"
    (cd "$work/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$work/initramfs"
    mv "$work/initramfs" "$out"
    rm -rf "$work"
    echo "$out"
}
