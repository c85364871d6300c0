#!/usr/bin/env bash
# Runs inside ctl: OVN's two databases, northd, and the guests' logical switch.
set -euo pipefail
# shellcheck source=lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

address=$UNDERLAY.${OCTET[ctl]}

# database SHORT PORT SCHEMA
database() {
    local db=/var/lib/ovn/$1.db
    if [[ ! -e $db ]]; then ovsdb-tool create "$db" "$3"; fi
    ovsdb-server "$db" --remote="punix:/run/ovn/ovn${1}_db.sock" \
        --remote="ptcp:$2:$address" --no-chdir \
        --unixctl="/run/ovn/ovn${1}_db.ctl" --pidfile="/run/ovn/ovn${1}_db.pid" --detach \
        -vconsole:off --log-file="/var/log/ovn/ovsdb-$1.log"
}
database nb 6641 /usr/share/ovn/ovn-nb.ovsschema
database sb 6642 /usr/share/ovn/ovn-sb.ovsschema

ovn-nbctl --no-wait init
ovn-sbctl init
ovn-northd --pidfile --detach -vconsole:off --log-file=/var/log/ovn/ovn-northd.log \
    --ovnnb-db=unix:/run/ovn/ovnnb_db.sock --ovnsb-db=unix:/run/ovn/ovnsb_db.sock

ovn-nbctl --may-exist ls-add ls0 -- --may-exist lsp-add ls0 client -- \
    lsp-set-addresses client "$CLIENT_MAC $CLIENT_IP"
