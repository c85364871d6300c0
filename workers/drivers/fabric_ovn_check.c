/* fabric_ovn_check.c - may this port move at all, and would its connections survive it; see driver.h.
 *
 * OVN keeps the state of connections in the connection tracker of the chassis where the port is. It stays behind when
 * the port moves, and a stateful rule then meets the middle of a connection it never saw begin. What makes OVN track:
 *   - an ACL `allow-related` on the port's switch or on a port group that contains the port;
 *   - an ACL `allow` there, when any `allow-related` applies to any port of the switch: OVN then tracks the
 * connections of
 *     the whole switch and treats both alike (ovn-nb(5), ACL action);
 *   - a load balancer on the port's switch: connections from the port to its address are rewritten where the port is;
 *   - distributed NAT of the port itself (NAT.logical_port with external_mac), done where the port is.
 * NAT and load balancing on a gateway stay on the gateway and are not disturbed. */
#include "workers/drivers/fabric_ovn.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"

#include <stdio.h>
#include <string.h>

#define ACLS_MAX 4096 /* looked at for one port */

/* ------------------------------------------------------------------ state that would be left behind */

static const char *const switch_columns[] = {"name", "ports", "acls", "load_balancer", "load_balancer_group", NULL};
static const char *const group_columns[] = {"name", "acls", NULL};
static const char *const nat_columns[] = {"external_ip", "external_mac", NULL};
static const char *const acl_columns[] = {"action", "match", NULL};
static const char *const lb_group_columns[] = {"load_balancer", NULL};

static json_t *rows_of(const json_t *results, size_t i)
{
    return json_object_get(json_array_get(results, i), "rows");
}

/* Appends a select by row UUID for each member of `set`. */
static int add_selects(json_t *ops, const char *table, const json_t *set, const char *const *columns)
{
    for (size_t i = 0; i < lmo_ovsdb_set_size(set); i++) {
        if (json_array_size(ops) >= ACLS_MAX)
            return LMO_E_TOO_LARGE;
        json_t *where = json_pack("[[ssO]]", "_uuid", "==", lmo_ovsdb_set_at(set, i));
        if (json_array_append_new(ops, lmo_ovsdb_select_op(table, where, columns)) < 0)
            return LMO_E_NO_MEMORY;
    }
    return 0;
}

/* What was found among ACLs. */
struct acl_finding {
    bool related, allow;
    char owner[128]; /* of the first allow-related, else of the first allow */
    char match[128];
};

static void note_acl(struct acl_finding *found, const char *kind, const char *owner, const json_t *acl)
{
    const char *action = lmo_ovsdb_string(json_object_get(acl, "action"));
    const char *match = lmo_ovsdb_string(json_object_get(acl, "match"));
    bool related = action && strcmp(action, "allow-related") == 0, allow = action && strcmp(action, "allow") == 0;
    if ((related && !found->related) || (allow && !found->allow && !found->related)) {
        (void)snprintf(found->owner, sizeof found->owner, "%s '%s'", kind, owner ? owner : "?");
        (void)snprintf(found->match, sizeof found->match, "%s", match ? match : "");
    }
    found->related |= related;
    found->allow |= allow;
}

/* Looks through the ACLs of these rows (a switch, or port groups). */
static int find_acls(struct ovn_fabric *f, const char *port_id, const char *kind, const json_t *rows,
                     uint64_t deadline_ns, struct acl_finding *found, struct lmo_err *err)
{
    size_t i, j;
    json_t *row, *result;
    json_array_foreach(rows, i, row)
    {
        const char *name = lmo_ovsdb_string(json_object_get(row, "name"));
        LMO_AUTO_JSON json_t *ops = json_array(), *results = NULL;
        int r = add_selects(ops, "ACL", json_object_get(row, "acls"), acl_columns);
        if (r < 0)
            return lmo_fail(err, r, "port %s: %s '%s' has too many ACLs to look at", port_id, kind, name ? name : "?");
        if (json_array_size(ops) == 0)
            continue;
        r = lmo_ovsdb_transact(f->nb, LMO_TAKE(ops), deadline_ns, &results, err);
        if (r < 0)
            return r;
        json_array_foreach(results, j, result)
            note_acl(found, kind, name, json_array_get(json_object_get(result, "rows"), 0));
    }
    return 0;
}

static bool share_a_port(const json_t *a, const json_t *b)
{
    for (size_t i = 0; i < lmo_ovsdb_set_size(a); i++) {
        const char *uuid = lmo_ovsdb_uuid(lmo_ovsdb_set_at(a, i));
        if (uuid && lmo_ovsdb_set_has_uuid(b, uuid))
            return true;
    }
    return false;
}

/* Does some port group with a port on this switch make OVN track its connections? Asked only when it matters: the
 * port has an `allow` of its own. */
static int find_neighbours_acls(struct ovn_fabric *f, const char *port_id, const json_t *sw, uint64_t deadline_ns,
                                struct acl_finding *found, struct lmo_err *err)
{
    static const char *const columns[] = {"name", "ports", "acls", NULL};
    LMO_AUTO_JSON json_t *groups = NULL, *near = json_array();
    size_t i;
    json_t *group;
    int r = lmo_ovsdb_select(f->nb, "Port_Group", json_array(), columns, deadline_ns, &groups, err);
    if (r < 0)
        return r;
    json_array_foreach(groups, i, group)
    {
        if (share_a_port(json_object_get(group, "ports"), json_object_get(sw, "ports")))
            json_array_append(near, group);
    }
    return find_acls(f, port_id, "port group", near, deadline_ns, found, err);
}

/* `switches`: the port's one, `groups`: the port groups it is in. */
static int check_acls(struct ovn_fabric *f, const char *port_id, const json_t *switches, const json_t *groups,
                      uint64_t deadline_ns, struct lmo_err *err)
{
    struct acl_finding own = {0}, near = {0};
    int r = find_acls(f, port_id, "switch", switches, deadline_ns, &own, err);
    if (r == 0)
        r = find_acls(f, port_id, "port group", groups, deadline_ns, &own, err);
    if (r == 0 && own.allow && !own.related)
        r = find_neighbours_acls(f, port_id, json_array_get(switches, 0), deadline_ns, &near, err);
    if (r < 0 || (!own.related && !(own.allow && near.related)))
        return r;
    return lmo_fail(
        err, LMO_E_REFUSED,
        "port %s: stateful firewall: ACL %s of %s (%.100s); the state of its connections cannot be moved yet", port_id,
        own.related ? "allow-related" : "allow, which OVN tracks on this switch,", own.owner, own.match);
}

static int check_balancers(struct ovn_fabric *f, const char *port_id, const json_t *sw, uint64_t deadline_ns,
                           struct lmo_err *err)
{
    size_t count = lmo_ovsdb_set_size(json_object_get(sw, "load_balancer")), i;
    LMO_AUTO_JSON json_t *results = NULL;
    json_t *result, *ops = json_array();
    int r = add_selects(ops, "Load_Balancer_Group", json_object_get(sw, "load_balancer_group"), lb_group_columns);
    if (r == 0 && json_array_size(ops) > 0)
        r = lmo_ovsdb_transact(f->nb, json_incref(ops), deadline_ns, &results, err);
    json_decref(ops);
    if (r < 0)
        return r;
    json_array_foreach(results, i, result) count +=
        lmo_ovsdb_set_size(json_object_get(json_array_get(json_object_get(result, "rows"), 0), "load_balancer"));
    if (count == 0)
        return 0;
    const char *name = lmo_ovsdb_string(json_object_get(sw, "name"));
    return lmo_fail(
        err, LMO_E_REFUSED,
        "port %s: %zu load balancers on switch '%s' keep the state of its connections on the source; it cannot be "
        "moved yet",
        port_id, count, name ? name : "?");
}

int ovn_check_stateless(struct ovn_fabric *f, const struct lmo_port *port, const struct ovn_lsp *lsp,
                        uint64_t deadline_ns, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *results = NULL;
    json_t *ops = json_pack(
        "[ooo]",
        lmo_ovsdb_select_op("Logical_Switch", json_pack("[[sso]]", "ports", "includes", lmo_ovsdb_make_uuid(lsp->uuid)),
                            switch_columns),
        lmo_ovsdb_select_op("Port_Group", json_pack("[[sso]]", "ports", "includes", lmo_ovsdb_make_uuid(lsp->uuid)),
                            group_columns),
        lmo_ovsdb_select_op("NAT", json_pack("[[sss]]", "logical_port", "==", port->id), nat_columns));
    int r = lmo_ovsdb_transact(f->nb, ops, deadline_ns, &results, err);
    if (r == 0)
        r = check_acls(f, port->id, rows_of(results, 0), rows_of(results, 1), deadline_ns, err);
    if (r == 0)
        r = check_balancers(f, port->id, json_array_get(rows_of(results, 0), 0), deadline_ns, err);
    size_t i;
    json_t *nat;
    json_array_foreach(r == 0 ? rows_of(results, 2) : NULL, i, nat)
    {
        const char *ip = lmo_ovsdb_string(json_object_get(nat, "external_ip"));
        if (lmo_ovsdb_string(json_object_get(nat, "external_mac")))
            return lmo_fail(
                err, LMO_E_REFUSED,
                "port %s: distributed NAT of %s keeps the state of its connections on the source; it cannot be "
                "moved yet",
                port->id, ip ? ip : "its address");
    }
    /* Only questions were asked: one without an answer changed nothing. */
    return r == LMO_E_UNKNOWN || r == LMO_E_TIMEOUT
               ? lmo_fail(err, LMO_E_UNAVAILABLE, "port %s: no answer from the northbound database", port->id)
               : r;
}

/* ------------------------------------------------------------------ check */

static int check_kind(struct ovn_fabric *f, const struct lmo_port *port, const struct ovn_lsp *lsp,
                      uint64_t deadline_ns, struct lmo_err *err)
{
    static const char *const columns[] = {"name", NULL};
    LMO_AUTO_JSON json_t *children = NULL;
    if (lsp->type[0])
        return lmo_fail(err, LMO_E_UNSUPPORTED, "port %s: of type '%s'; only a guest's own port can move", port->id,
                        lsp->type);
    if (lsp->has_parent)
        return lmo_fail(err, LMO_E_UNSUPPORTED, "port %s: nested in another port; that one moves", port->id);
    int r = lmo_ovsdb_select(f->nb, "Logical_Switch_Port", json_pack("[[sss]]", "parent_name", "==", port->id), columns,
                             deadline_ns, &children, err);
    if (r == 0 && json_array_size(children) > 0)
        r = lmo_fail(err, LMO_E_UNSUPPORTED, "port %s: carries %zu nested ports (a trunk), which cannot be moved yet",
                     port->id, json_array_size(children));
    return r;
}

static int check_request(const struct lmo_port *port, const struct ovn_lsp *lsp, const struct ovn_chassis *source,
                         struct lmo_err *err)
{
    if (strchr(lsp->requested, ','))
        return lmo_fail(err, LMO_E_CONFLICT,
                        "port %s: requested for several hosts already ('%s'): another migration, or an "
                        "unfinished one; set it back to one host first",
                        port->id, lsp->requested);
    if (lsp->requested[0] && !ovn_means(source, lsp->requested))
        return lmo_fail(err, LMO_E_CONFLICT, "port %s: requested for host '%s', but the guest is on '%s'", port->id,
                        lsp->requested, source->name);
    if (lsp->has_strategy && !lsp->held)
        return lmo_fail(err, LMO_E_CONFLICT, "port %s: has an activation strategy of its own", port->id);
    return 0;
}

static int check_up(const struct lmo_port *port, const struct ovn_lsp *lsp, struct lmo_err *err)
{
    if (!lsp->enabled)
        return lmo_fail(err, LMO_E_REFUSED, "port %s: is disabled", port->id);
    if (!lsp->up)
        return lmo_fail(err, LMO_E_REFUSED, "port %s: is not up", port->id);
    return 0;
}

static int check_bound(struct ovn_fabric *f, const struct lmo_port *port, const struct ovn_chassis *source,
                       uint64_t deadline_ns, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *rows = NULL;
    struct ovn_binding b;
    int r = lmo_ovsdb_select(f->sb, "Port_Binding", ovn_binding_where(port->id), ovn_binding_columns, deadline_ns,
                             &rows, err);
    if (r < 0)
        return r;
    if (!ovn_binding_read(rows, &b))
        return lmo_fail(err, LMO_E_NOT_FOUND, "port %s: no binding in the southbound database", port->id);
    if (strcmp(b.chassis, source->uuid) != 0)
        return lmo_fail(err, LMO_E_CONFLICT, "port %s: not bound at '%s'", port->id, source->name);
    if (lmo_ovsdb_set_size(b.additional) > 0 || b.activated)
        return lmo_fail(err, LMO_E_CONFLICT, "port %s: still bound at a second host from an earlier attempt", port->id);
    return 0;
}

/* What both checks begin with. *ret_lsp is to be released on success. */
static int find_all(struct ovn_fabric *f, const struct lmo_port *port, const char *source, const char *destination,
                    uint64_t deadline_ns, struct ovn_chassis *ret_source, struct ovn_lsp *ret_lsp, struct lmo_err *err)
{
    struct ovn_chassis d = {0};
    int r = ovn_check_port(port, err);
    if (r == 0)
        r = ovn_find_chassis(f, source, deadline_ns, ret_source, err);
    if (r == 0)
        r = ovn_find_chassis(f, destination, deadline_ns, &d, err);
    if (r == 0 && strcmp(ret_source->uuid, d.uuid) == 0)
        r = lmo_fail(err, LMO_E_INVALID, "source '%s' and destination '%s' are the same chassis", source, destination);
    return r == 0 ? ovn_find_lsp(f, port->id, deadline_ns, ret_lsp, err) : r;
}

int ovn_check(struct lmo_fabric *base, const struct lmo_port *port, const char *source, const char *destination,
              bool accept_stateful_loss, uint64_t timeout_ms, struct lmo_err *err)
{
    struct ovn_fabric *f = (struct ovn_fabric *)base;
    uint64_t deadline_ns = lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;
    struct ovn_chassis s = {0};
    struct ovn_lsp lsp = {0};
    int r = find_all(f, port, source, destination, deadline_ns, &s, &lsp, err);
    if (r == 0)
        r = check_kind(f, port, &lsp, deadline_ns, err);
    if (r == 0)
        r = check_request(port, &lsp, &s, err);
    if (r == 0)
        r = check_up(port, &lsp, err);
    if (r == 0)
        r = check_bound(f, port, &s, deadline_ns, err);
    if (r == 0 && !accept_stateful_loss)
        r = ovn_check_stateless(f, port, &lsp, deadline_ns, err);
    ovn_lsp_done(&lsp);
    return r;
}

static int check_not_bound(struct ovn_fabric *f, const struct lmo_port *port, uint64_t deadline_ns, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *rows = NULL;
    struct ovn_binding b;
    int r = lmo_ovsdb_select(f->sb, "Port_Binding", ovn_binding_where(port->id), ovn_binding_columns, deadline_ns,
                             &rows, err);
    if (r == 0 && ovn_binding_read(rows, &b) && (b.chassis[0] || lmo_ovsdb_set_size(b.additional) > 0))
        r = lmo_fail(err, LMO_E_CONFLICT, "port %s: bound at some host, although its guest is shut off", port->id);
    return r;
}

int ovn_check_unbound(struct lmo_fabric *base, const struct lmo_port *port, const char *source, const char *destination,
                      uint64_t timeout_ms, struct lmo_err *err)
{
    struct ovn_fabric *f = (struct ovn_fabric *)base;
    uint64_t deadline_ns = lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;
    struct ovn_chassis s = {0};
    struct ovn_lsp lsp = {0};
    int r = find_all(f, port, source, destination, deadline_ns, &s, &lsp, err);
    if (r == 0)
        r = check_kind(f, port, &lsp, deadline_ns, err);
    if (r == 0)
        r = check_request(port, &lsp, &s, err);
    if (r == 0)
        r = check_not_bound(f, port, deadline_ns, err);
    ovn_lsp_done(&lsp);
    return r;
}
