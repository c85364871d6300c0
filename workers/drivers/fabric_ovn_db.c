/* fabric_ovn_db.c - OVN's rows as structs; see fabric_ovn.h. Columns are those of ovn-nb(5) and ovn-sb(5). */
#include "workers/drivers/fabric_ovn.h"

#include "base/cleanup.h"
#include "base/json.h"

#include <stdio.h>
#include <string.h>

static void copy(char *to, size_t size, const char *text)
{
    (void)snprintf(to, size, "%s", text ? text : "");
}

int ovn_check_port(const struct lmo_port *port, struct lmo_err *err)
{
    if (!port->id[0])
        return lmo_fail(
            err, LMO_E_INVALID,
            "port %s (%s): no OVN logical port: the domain's interface needs a virtualport of type openvswitch "
            "with an interfaceid",
            port->mac, port->device[0] ? port->device : "no device");
    return 0;
}

bool ovn_means(const struct ovn_chassis *c, const char *text)
{
    return strcmp(text, c->name) == 0 || strcmp(text, c->hostname) == 0;
}

bool ovn_list_has(const char *list, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = list; at && *at;) {
        size_t entry = strcspn(at, ",");
        if (entry == len && strncmp(at, name, len) == 0)
            return true;
        at += entry + (at[entry] == ',');
    }
    return false;
}

int ovn_find_chassis(struct ovn_fabric *f, const char *host, uint64_t deadline_ns, struct ovn_chassis *ret,
                     struct lmo_err *err)
{
    static const char *const columns[] = {"_uuid", "name", "hostname", NULL};
    LMO_AUTO_JSON json_t *results = NULL;
    json_t *ops = json_pack("[oo]", lmo_ovsdb_select_op("Chassis", json_pack("[[sss]]", "name", "==", host), columns),
                            lmo_ovsdb_select_op("Chassis", json_pack("[[sss]]", "hostname", "==", host), columns));
    int r = lmo_ovsdb_transact(f->sb, ops, deadline_ns, &results, err);
    if (r < 0)
        return r == LMO_E_UNKNOWN || r == LMO_E_TIMEOUT
                   ? lmo_fail(err, LMO_E_UNAVAILABLE, "chassis of host '%s': no answer from the southbound database",
                              host)
                   : r;
    const json_t *rows = json_object_get(json_array_get(results, 0), "rows");
    if (json_array_size(rows) == 0)
        rows = json_object_get(json_array_get(results, 1), "rows");
    if (json_array_size(rows) == 0)
        return lmo_fail(err, LMO_E_NOT_FOUND,
                        "host '%s' is no chassis of OVN: no Chassis row with that name or hostname", host);
    if (json_array_size(rows) > 1)
        return lmo_fail(err, LMO_E_CONFLICT, "host name '%s' is carried by %zu chassis; use the chassis's name", host,
                        json_array_size(rows));
    const json_t *row = json_array_get(rows, 0);
    copy(ret->uuid, sizeof ret->uuid, lmo_ovsdb_uuid(json_object_get(row, "_uuid")));
    copy(ret->name, sizeof ret->name, lmo_ovsdb_string(json_object_get(row, "name")));
    copy(ret->hostname, sizeof ret->hostname, lmo_ovsdb_string(json_object_get(row, "hostname")));
    return 0;
}

void ovn_lsp_done(struct ovn_lsp *lsp)
{
    json_decref(lsp->options);
    lsp->options = NULL;
}

int ovn_find_lsp(struct ovn_fabric *f, const char *port_id, uint64_t deadline_ns, struct ovn_lsp *ret,
                 struct lmo_err *err)
{
    static const char *const columns[] = {"_uuid", "type", "options", "up", "enabled", "parent_name", NULL};
    LMO_AUTO_JSON json_t *rows = NULL;
    int r = lmo_ovsdb_select(f->nb, "Logical_Switch_Port", json_pack("[[sss]]", "name", "==", port_id), columns,
                             deadline_ns, &rows, err);
    if (r < 0)
        return r;
    if (json_array_size(rows) != 1)
        return lmo_fail(err, LMO_E_NOT_FOUND, "port %s: no logical switch port of that name in the northbound database",
                        port_id);
    const json_t *row = json_array_get(rows, 0);
    json_t *options = json_object_get(row, "options");
    const char *requested = lmo_ovsdb_map_get(options, "requested-chassis");
    const char *strategy = lmo_ovsdb_map_get(options, "activation-strategy");
    if (requested && strlen(requested) >= sizeof ret->requested)
        return lmo_fail(err, LMO_E_UNSUPPORTED, "port %s: requested-chassis is longer than %zu characters", port_id,
                        sizeof ret->requested - 1);
    struct ovn_lsp lsp = {.held = strategy && strcmp(strategy, "rarp") == 0, .has_strategy = strategy && strategy[0]};
    copy(lsp.uuid, sizeof lsp.uuid, lmo_ovsdb_uuid(json_object_get(row, "_uuid")));
    copy(lsp.type, sizeof lsp.type, lmo_ovsdb_string(json_object_get(row, "type")));
    copy(lsp.requested, sizeof lsp.requested, requested);
    lsp.up = lmo_ovsdb_true(json_object_get(row, "up"));
    const json_t *enabled = json_object_get(row, "enabled");
    lsp.enabled = lmo_ovsdb_set_size(enabled) == 0 || lmo_ovsdb_true(enabled);
    lsp.has_parent = lmo_ovsdb_string(json_object_get(row, "parent_name")) != NULL;
    lsp.options = json_incref(options);
    *ret = lsp;
    return 0;
}

/* Returns owned: the map `options` with one key set, or removed (value NULL). Takes `options`. */
static json_t *with_option(json_t *options, const char *key, const char *value)
{
    LMO_AUTO_JSON json_t *old = options;
    json_t *pairs = json_array();
    json_t *list = json_array_get(old, 1);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *pair = json_array_get(list, i);
        const char *k = json_string_value(json_array_get(pair, 0));
        if (k && strcmp(k, key) != 0)
            json_array_append(pairs, pair);
    }
    if (value)
        json_array_append_new(pairs, json_pack("[ss]", key, value));
    return json_pack("[so]", "map", pairs);
}

int ovn_set_request(struct ovn_fabric *f, const struct ovn_lsp *lsp, const char *requested, const char *strategy,
                    uint64_t deadline_ns, struct lmo_err *err)
{
    json_t *options = with_option(json_incref(lsp->options), "requested-chassis", requested);
    options = with_option(options, "activation-strategy", strategy);
    /* "wait" with timeout 0: the rest happens only if the options still are what was read. */
    json_t *ops =
        json_pack("[{ss, si, ss, s[[sso]], s[s], ss, s[{sO}]}, {ss, ss, s[[sso]], s{so}}, {ss, ss}]", "op", "wait",
                  "timeout", 0, "table", "Logical_Switch_Port", "where", "_uuid", "==", lmo_ovsdb_make_uuid(lsp->uuid),
                  "columns", "options", "until", "==", "rows", "options", lsp->options, "op", "update", "table",
                  "Logical_Switch_Port", "where", "_uuid", "==", lmo_ovsdb_make_uuid(lsp->uuid), "row", "options",
                  options, "op", "comment", "comment", "lmo: requested-chassis");
    return lmo_ovsdb_transact(f->nb, ops, deadline_ns, NULL, err);
}

/* ------------------------------------------------------------------ southbound */

const char *const ovn_binding_columns[] = {
    "logical_port", "chassis", "additional_chassis", "requested_chassis", "requested_additional_chassis", "options",
    "up",           NULL};

json_t *ovn_binding_where(const char *port_id)
{
    return json_pack("[[sss]]", "logical_port", "==", port_id);
}

bool ovn_binding_read(const json_t *rows, struct ovn_binding *ret)
{
    const json_t *row = NULL;
    if (json_is_array(rows) && json_array_size(rows) == 1)
        row = json_array_get(rows, 0);
    else if (json_is_object(rows) && json_object_size(rows) == 1)
        row = json_object_iter_value(json_object_iter((json_t *)rows));
    if (!row)
        return false;
    const json_t *options = json_object_get(row, "options");
    *ret = (struct ovn_binding){
        .additional = json_object_get(row, "additional_chassis"),
        .requested_additional = json_object_get(row, "requested_additional_chassis"),
        .activated = lmo_ovsdb_map_get(options, "additional-chassis-activated"),
        .has_strategy = lmo_ovsdb_map_get(options, "activation-strategy") != NULL,
        .up = lmo_ovsdb_true(json_object_get(row, "up")),
    };
    copy(ret->chassis, sizeof ret->chassis, lmo_ovsdb_uuid(json_object_get(row, "chassis")));
    copy(ret->requested, sizeof ret->requested, lmo_ovsdb_uuid(json_object_get(row, "requested_chassis")));
    return true;
}
