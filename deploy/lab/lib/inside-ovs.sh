#!/usr/bin/env bash
# Runs inside a hypervisor: Open vSwitch with the userspace datapath (not every
# machine has the kernel's) and OVN's controller.
#
# br-phy holds the tunnel network's interface and address: the userspace
# datapath finds its way to other hosts only through a bridge of its own.
set -euo pipefail
# shellcheck source=lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

host=$1
address=$TUNNEL.${OCTET[$host]}
db=/var/lib/openvswitch/conf.db

# Always a new database: the ports of guests that ran before a power-off are gone.
rm -f "$db"
ovsdb-tool create "$db" /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server "$db" --remote=punix:/run/openvswitch/db.sock --no-chdir --pidfile --detach \
    -vconsole:off --log-file=/var/log/openvswitch/ovsdb-server.log
ovs-vsctl --no-wait init -- set Open_vSwitch . \
    external_ids:system-id="$host" external_ids:hostname="$host" \
    external_ids:ovn-remote="$OVN_SB" \
    external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip="$address" \
    external_ids:ovn-bridge-datapath-type=netdev \
    external_ids:ovn-openflow-probe-interval=60 external_ids:ovn-remote-probe-interval=30000
ovs-vswitchd --disable-system --no-chdir --pidfile --detach \
    -vconsole:off --log-file=/var/log/openvswitch/ovs-vswitchd.log
ovs-vsctl --timeout=20 \
    --may-exist add-br br-int -- set Bridge br-int datapath_type=netdev fail_mode=secure -- \
    --may-exist add-br br-phy -- set Bridge br-phy datapath_type=netdev -- \
    --may-exist add-port br-phy tun0 -- set Interface br-phy mtu_request="$TUNNEL_MTU"
ethtool -K br-phy tx off >/dev/null
ip address replace "$address/24" dev br-phy
ip link set br-phy up
ip link set br-int up
ovn-controller unix:/run/openvswitch/db.sock --no-chdir --pidfile --detach \
    -vconsole:off --log-file=/var/log/ovn/ovn-controller.log
