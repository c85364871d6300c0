/* fabric_ovn.c - OVN's side of a move: who may deliver to a port, asked for in the northbound database and believed
 * only when the southbound one shows it; see driver.h and docs/ovn.md.
 *
 *   dual    options:requested-chassis="source,destination", options:activation-strategy=rarp
 *           -> Port_Binding.requested_additional_chassis has the destination
 *   (the destination's interface appears) -> Port_Binding.additional_chassis has the destination: await_bound
 *   single  options:requested-chassis=host, no strategy
 *           -> chassis = host, nothing additional, options:additional-chassis-activated gone
 *
 * Every change is compare-and-set on the port's options as they were read, so that two movers of one port cannot both
 * win. A change whose reply is lost is looked for before anything else is done. */
#include "workers/drivers/fabric_ovn.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define STRATEGY             "rarp"
#define ROUND_TRIP_SHARED_NS (250 * LMO_NS_PER_MS) /* one confirmed round trip serves all who ask within this time */
#define SET_ATTEMPTS         8                     /* when others change the port's options at the same time */
#define RELEASE_WAIT_MS      3000                  /* for the other host to let go by itself, before it is made to */

static struct ovn_fabric *self(struct lmo_fabric *f)
{
    return (struct ovn_fabric *)f; /* base is the first member */
}

static uint64_t deadline_of(uint64_t timeout_ms)
{
    return lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;
}

/* Watches the port's binding until `until` says so; `missing` completes "port X: ..." at the deadline. */
static int await_binding(struct ovn_fabric *f, const struct lmo_port *port, lmo_ovsdb_until_fn *until, void *arg,
                         uint64_t deadline_ns, int timeout_code, const char *missing, struct lmo_err *err)
{
    struct lmo_ovsdb_watch *w = NULL;
    int r = lmo_ovsdb_watch_open(f->sb, "Port_Binding", ovn_binding_where(port->id), ovn_binding_columns, deadline_ns,
                                 &w, err);
    if (r < 0)
        return r;
    r = lmo_ovsdb_watch_wait(w, until, arg, deadline_ns, err);
    lmo_ovsdb_watch_close(w);
    return r == LMO_E_TIMEOUT ? lmo_fail(err, timeout_code, "port %s: %s", port->id, missing) : r;
}

/* ------------------------------------------------------------------ preload */

/* Asks all controllers to say how far they are. Concurrent askers, in this process or elsewhere, each add one and
 * wait for the number they got: a controller that reaches a later number has passed all earlier ones. The price is
 * one small write of every controller in the deployment, so askers within a short time share. */
static int ask_round_trip(struct ovn_fabric *f, uint64_t deadline_ns, int64_t *ret_cfg, struct lmo_err *err)
{
    pthread_mutex_lock(&f->lock);
    bool fresh = f->round_trip_ns != 0 && lmo_now_ns() - f->round_trip_ns < ROUND_TRIP_SHARED_NS;
    *ret_cfg = f->round_trip;
    pthread_mutex_unlock(&f->lock);
    if (fresh)
        return 0;
    static const char *const columns[] = {"nb_cfg", NULL};
    LMO_AUTO_JSON json_t *results = NULL;
    uint64_t asked_ns = lmo_now_ns();
    json_t *ops = json_pack("[{ss, ss, s[], s[[ssi]]}, o]", "op", "mutate", "table", "NB_Global", "where", "mutations",
                            "nb_cfg", "+=", 1, lmo_ovsdb_select_op("NB_Global", json_array(), columns));
    int r = lmo_ovsdb_transact(f->nb, ops, deadline_ns, &results, err);
    if (r < 0)
        return r == LMO_E_UNKNOWN || r == LMO_E_TIMEOUT /* one more than needed does no harm: ask again later */
                   ? lmo_fail(err, LMO_E_UNAVAILABLE, "no answer from the northbound database")
                   : r;
    const json_t *row = json_array_get(json_object_get(json_array_get(results, 1), "rows"), 0);
    if (!lmo_ovsdb_integer(json_object_get(row, "nb_cfg"), ret_cfg))
        return lmo_fail(err, LMO_E_UNAVAILABLE, "the northbound database has no NB_Global row");
    pthread_mutex_lock(&f->lock);
    if (*ret_cfg > f->round_trip) {
        f->round_trip = *ret_cfg;
        f->round_trip_ns = asked_ns;
    }
    pthread_mutex_unlock(&f->lock);
    return 0;
}

struct cfg_wait {
    int64_t wanted, seen;
    bool known;
};

/* lmo_ovsdb_until_fn on Chassis_Private. */
static int cfg_reached(void *arg, const json_t *rows, struct lmo_err *err)
{
    struct cfg_wait *w = arg;
    (void)err;
    const json_t *row = json_object_iter_value(json_object_iter((json_t *)rows));
    w->known = row != NULL;
    w->seen = 0; /* a column at its default is not sent */
    (void)lmo_ovsdb_integer(json_object_get(row, "nb_cfg"), &w->seen);
    return row && w->seen >= w->wanted;
}

static int op_preload(struct lmo_fabric *base, const char *destination, uint64_t timeout_ms, struct lmo_err *err)
{
    static const char *const columns[] = {"name", "nb_cfg", NULL};
    struct ovn_fabric *f = self(base);
    uint64_t deadline_ns = deadline_of(timeout_ms);
    struct ovn_chassis c = {0};
    struct cfg_wait w = {0};
    struct lmo_ovsdb_watch *watch = NULL;
    int r = ovn_find_chassis(f, destination, deadline_ns, &c, err);
    if (r == 0)
        r = ask_round_trip(f, deadline_ns, &w.wanted, err);
    if (r == 0)
        r = lmo_ovsdb_watch_open(f->sb, "Chassis_Private", json_pack("[[sss]]", "name", "==", c.name), columns,
                                 deadline_ns, &watch, err);
    if (r < 0)
        return r;
    r = lmo_ovsdb_watch_wait(watch, cfg_reached, &w, deadline_ns, err);
    lmo_ovsdb_watch_close(watch);
    if (r != LMO_E_TIMEOUT)
        return r;
    if (!w.known)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "ovn-controller of host '%s' has no Chassis_Private row", destination);
    return lmo_fail(err, LMO_E_UNAVAILABLE,
                    "ovn-controller of host '%s' did not confirm in time (it is at %" PRId64 ", wanted %" PRId64 ")",
                    destination, w.seen, w.wanted);
}

/* ------------------------------------------------------------------ changing what is requested */

/* What a change is to make of the port's options; `allowed` refuses a port whose present options do not permit it. */
struct request {
    char requested[600];
    const char *strategy; /* NULL: none */
    int (*allowed)(const struct request *rq, const struct ovn_lsp *lsp, const struct lmo_port *port,
                   struct lmo_err *err);
    const struct ovn_chassis *source, *destination;
};

static bool holds_already(const struct request *rq, const struct ovn_lsp *lsp)
{
    return strcmp(lsp->requested, rq->requested) == 0 && lsp->has_strategy == (rq->strategy != NULL) &&
           (!rq->strategy || lsp->held);
}

/* Reads, decides, compares and sets; again when somebody else changed the options in between. After a lost reply the
 * next thing is to read again: either the change is there, or it is made again (which it can be: the same change twice
 * is one). */
static int request_binding(struct ovn_fabric *f, const struct lmo_port *port, const struct request *rq,
                           uint64_t deadline_ns, struct lmo_err *err)
{
    bool unsure = false;
    int r = lmo_fail(err, LMO_E_UNAVAILABLE, "port %s: no time left to ask for its binding", port->id);
    for (int i = 0; i < SET_ATTEMPTS && lmo_now_ns() < deadline_ns; i++) {
        struct ovn_lsp lsp = {0};
        r = ovn_find_lsp(f, port->id, deadline_ns, &lsp, err);
        if (r == 0 && holds_already(rq, &lsp)) {
            ovn_lsp_done(&lsp);
            return 0;
        }
        if (r == 0 && rq->allowed)
            r = rq->allowed(rq, &lsp, port, err);
        if (r < 0) {
            ovn_lsp_done(&lsp);
            break;
        }
        r = ovn_set_request(f, &lsp, rq->requested, rq->strategy, deadline_ns, err);
        ovn_lsp_done(&lsp);
        unsure |= r == LMO_E_UNKNOWN || r == LMO_E_TIMEOUT;
        if (r != LMO_E_CONFLICT && r != LMO_E_UNKNOWN)
            break;
    }
    if (r < 0 && unsure && r != LMO_E_TIMEOUT)
        return lmo_fail(err, LMO_E_UNKNOWN, "port %s: what became of its new binding request is not known", port->id);
    return r;
}

/* requested-chassis in the words that the port's owner uses: host names if that is what stands there, else names. */
static const char *word_for(const struct ovn_chassis *c, bool by_hostname)
{
    return by_hostname && c->hostname[0] ? c->hostname : c->name;
}

static bool uses_hostnames(const struct ovn_lsp *lsp, const struct ovn_chassis *c)
{
    return strcmp(c->name, c->hostname) != 0 && ovn_list_has(lsp->requested, c->hostname);
}

/* ------------------------------------------------------------------ dual */

static int dual_allowed(const struct request *rq, const struct ovn_lsp *lsp, const struct lmo_port *port,
                        struct lmo_err *err)
{
    if (lsp->requested[0] && !ovn_means(rq->source, lsp->requested) && strcmp(lsp->requested, rq->requested) != 0)
        return lmo_fail(err, LMO_E_CONFLICT,
                        "port %s: requested for '%s' already, not for '%s' alone: another migration?", port->id,
                        lsp->requested, rq->source->name);
    if (lsp->has_strategy && !lsp->held)
        return lmo_fail(err, LMO_E_CONFLICT, "port %s: has an activation strategy of its own", port->id);
    return 0;
}

struct dual_wait {
    const struct lmo_port *port;
    const struct ovn_chassis *source, *destination;
};

/* lmo_ovsdb_until_fn: both are requested, and the destination's copy is still to be opened. */
static int dual_requested(void *arg, const json_t *rows, struct lmo_err *err)
{
    const struct dual_wait *w = arg;
    struct ovn_binding b;
    if (!ovn_binding_read(rows, &b))
        return 0;
    if (ovn_list_has(b.activated, w->destination->name))
        return lmo_fail(err, LMO_E_CONFLICT,
                        "port %s: '%s' counts as opened from an earlier attempt; set the port back to one host first",
                        w->port->id, w->destination->name);
    return strcmp(b.requested, w->source->uuid) == 0 && b.has_strategy &&
           lmo_ovsdb_set_has_uuid(b.requested_additional, w->destination->uuid);
}

static int op_dual(struct lmo_fabric *base, const struct lmo_port *port, const char *source, const char *destination,
                   uint64_t timeout_ms, struct lmo_err *err)
{
    struct ovn_fabric *f = self(base);
    uint64_t deadline_ns = deadline_of(timeout_ms);
    struct ovn_chassis s = {0}, d = {0};
    struct ovn_lsp lsp = {0};
    int r = ovn_check_port(port, err);
    if (r == 0)
        r = ovn_find_chassis(f, source, deadline_ns, &s, err);
    if (r == 0)
        r = ovn_find_chassis(f, destination, deadline_ns, &d, err);
    if (r == 0 && strcmp(s.uuid, d.uuid) == 0)
        r = lmo_fail(err, LMO_E_INVALID, "source '%s' and destination '%s' are the same chassis", source, destination);
    if (r == 0)
        r = ovn_find_lsp(f, port->id, deadline_ns, &lsp, err);
    if (r < 0)
        return r;
    bool by_hostname = uses_hostnames(&lsp, &s);
    ovn_lsp_done(&lsp);
    struct request rq = {.strategy = STRATEGY, .allowed = dual_allowed, .source = &s, .destination = &d};
    (void)snprintf(rq.requested, sizeof rq.requested, "%s,%s", word_for(&s, by_hostname), word_for(&d, by_hostname));
    r = request_binding(f, port, &rq, deadline_ns, err);
    if (r < 0)
        return r;
    struct dual_wait w = {.port = port, .source = &s, .destination = &d};
    return await_binding(
        f, port, dual_requested, &w, deadline_ns, LMO_E_TIMEOUT,
        "requested for both hosts, but the southbound database does not show it (is ovn-northd running?)", err);
}

/* lmo_ovsdb_until_fn */
static int additional_bound(void *arg, const json_t *rows, struct lmo_err *err)
{
    const struct ovn_chassis *d = arg;
    struct ovn_binding b;
    (void)err;
    return ovn_binding_read(rows, &b) && lmo_ovsdb_set_has_uuid(b.additional, d->uuid);
}

static int op_await_bound(struct lmo_fabric *base, const struct lmo_port *port, const char *destination,
                          uint64_t timeout_ms, struct lmo_err *err)
{
    struct ovn_fabric *f = self(base);
    uint64_t deadline_ns = deadline_of(timeout_ms);
    struct ovn_chassis d = {0};
    int r = ovn_check_port(port, err);
    if (r == 0)
        r = ovn_find_chassis(f, destination, deadline_ns, &d, err);
    if (r < 0)
        return r;
    return await_binding(f, port, additional_bound, &d, deadline_ns, LMO_E_UNAVAILABLE,
                         "the destination did not bind it as an additional chassis in time", err);
}

/* ------------------------------------------------------------------ single */

/* lmo_ovsdb_until_fn: one host, and nothing left of the other. */
static int single_bound(void *arg, const json_t *rows, struct lmo_err *err)
{
    const struct ovn_chassis *c = arg;
    struct ovn_binding b;
    (void)err;
    return ovn_binding_read(rows, &b) && strcmp(b.requested, c->uuid) == 0 && strcmp(b.chassis, c->uuid) == 0 &&
           lmo_ovsdb_set_size(b.requested_additional) == 0 && lmo_ovsdb_set_size(b.additional) == 0 && !b.activated &&
           !b.has_strategy && b.up;
}

/* lmo_ovsdb_until_fn: the hand-over can be made without a gap: no other host is the main one any more, or this one
 * is. */
static int others_let_go(void *arg, const json_t *rows, struct lmo_err *err)
{
    const struct ovn_chassis *c = arg;
    struct ovn_binding b;
    (void)err;
    return ovn_binding_read(rows, &b) &&
           (!b.chassis[0] || strcmp(b.chassis, c->uuid) == 0 || !lmo_ovsdb_set_has_uuid(b.additional, c->uuid));
}

/* While another host is still bound as the main one, asking for `c` alone makes both controllers write the same column,
 * neither looking: often the other's "nobody" comes after this one's "me", and nobody gets any frame until the next
 * round (seen in 4 of 5 hand-overs, 1 to 3 ms). The other host lets go by itself as soon as its guest's interface is
 * gone, and from then on frames come here alone: the hand-over after that is one transaction of one controller. So
 * that is waited for, but not for ever: the other host may be dead. */
static int await_release(struct ovn_fabric *f, const struct lmo_port *port, struct ovn_chassis *c, uint64_t timeout_ms,
                         struct lmo_err *err)
{
    uint64_t ms = timeout_ms / 2 < RELEASE_WAIT_MS ? timeout_ms / 2 : RELEASE_WAIT_MS;
    int r = await_binding(f, port, others_let_go, c, deadline_of(ms), LMO_E_BUSY, "still bound at another host", err);
    if (r == LMO_E_BUSY) {
        lmo_log(LMO_LOG_WARN, "binding taken over", "port=%s host=%s reason=%s", port->id, c->name,
                "the other host did not let go");
        return 0;
    }
    return r;
}

static int op_single(struct lmo_fabric *base, const struct lmo_port *port, const char *host, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    struct ovn_fabric *f = self(base);
    uint64_t deadline_ns = deadline_of(timeout_ms);
    struct ovn_chassis c = {0};
    struct ovn_lsp lsp = {0};
    int r = ovn_check_port(port, err);
    if (r == 0)
        r = ovn_find_chassis(f, host, deadline_ns, &c, err);
    if (r == 0)
        r = ovn_find_lsp(f, port->id, deadline_ns, &lsp, err);
    if (r < 0)
        return r;
    struct request rq = {0};
    (void)snprintf(rq.requested, sizeof rq.requested, "%s", word_for(&c, uses_hostnames(&lsp, &c)));
    ovn_lsp_done(&lsp);
    r = await_release(f, port, &c, timeout_ms, err);
    if (r == 0)
        r = request_binding(f, port, &rq, deadline_ns, err);
    if (r < 0)
        return r;
    return await_binding(f, port, single_bound, &c, deadline_ns, LMO_E_TIMEOUT,
                         "requested for one host alone, but not bound there alone (no interface of the port there?)",
                         err);
}

static int op_assign(struct lmo_fabric *base, const struct lmo_port *port, const char *host, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    struct ovn_fabric *f = self(base);
    uint64_t deadline_ns = deadline_of(timeout_ms);
    struct ovn_chassis c = {0}, before = {0};
    struct ovn_lsp lsp = {0};
    int r = ovn_check_port(port, err);
    if (r == 0)
        r = ovn_find_chassis(f, host, deadline_ns, &c, err);
    if (r == 0)
        r = ovn_find_lsp(f, port->id, deadline_ns, &lsp, err);
    if (r < 0)
        return r;
    struct request rq = {0};
    bool pinned = lsp.requested[0] != '\0';
    bool by_hostname = pinned && ovn_find_chassis(f, lsp.requested, deadline_ns, &before, NULL) == 0 &&
                       uses_hostnames(&lsp, &before);
    (void)snprintf(rq.requested, sizeof rq.requested, "%s", word_for(&c, by_hostname));
    ovn_lsp_done(&lsp);
    return pinned ? request_binding(f, port, &rq, deadline_ns, err) : 0;
}

/* ------------------------------------------------------------------ observe */

/* "hv1" for a chassis's row UUID; the UUID itself when the row is not there. */
static const char *name_of(const json_t *chassis, const char *uuid)
{
    size_t i;
    json_t *row;
    json_array_foreach(chassis, i, row)
    {
        const char *u = lmo_ovsdb_uuid(json_object_get(row, "_uuid"));
        if (u && uuid && strcmp(u, uuid) == 0)
            return lmo_ovsdb_string(json_object_get(row, "name"));
    }
    return uuid && uuid[0] ? uuid : "none";
}

static void list_names(const json_t *chassis, const json_t *set, char *ret, size_t size)
{
    size_t used = (size_t)snprintf(ret, size, "%s", lmo_ovsdb_set_size(set) ? "" : "none");
    for (size_t i = 0; i < lmo_ovsdb_set_size(set) && used < size; i++)
        used += (size_t)snprintf(ret + used, size - used, "%s%s", i ? "," : "",
                                 name_of(chassis, lmo_ovsdb_uuid(lmo_ovsdb_set_at(set, i))));
}

static int op_observe(struct lmo_fabric *base, const struct lmo_port *port, char *ret_text, size_t text_size,
                      uint64_t timeout_ms, struct lmo_err *err)
{
    static const char *const chassis_columns[] = {"_uuid", "name", NULL};
    struct ovn_fabric *f = self(base);
    uint64_t deadline_ns = deadline_of(timeout_ms);
    struct ovn_lsp lsp = {0};
    LMO_AUTO_JSON json_t *results = NULL;
    struct ovn_binding b = {0};
    int r = ovn_check_port(port, err);
    if (r == 0)
        r = ovn_find_lsp(f, port->id, deadline_ns, &lsp, err);
    ovn_lsp_done(&lsp);
    if (r == 0)
        r = lmo_ovsdb_transact(
            f->sb,
            json_pack("[oo]", lmo_ovsdb_select_op("Port_Binding", ovn_binding_where(port->id), ovn_binding_columns),
                      lmo_ovsdb_select_op("Chassis", json_array(), chassis_columns)),
            deadline_ns, &results, err);
    if (r < 0)
        return r == LMO_E_UNKNOWN || r == LMO_E_TIMEOUT
                   ? lmo_fail(err, LMO_E_UNAVAILABLE, "port %s: no answer", port->id)
                   : r;
    const json_t *chassis = json_object_get(json_array_get(results, 1), "rows");
    if (!ovn_binding_read(json_object_get(json_array_get(results, 0), "rows"), &b)) {
        (void)snprintf(ret_text, text_size, "requested-chassis=%s binding=none", lsp.requested);
        return 0;
    }
    char additional[200], requested[200];
    list_names(chassis, b.additional, additional, sizeof additional);
    list_names(chassis, b.requested_additional, requested, sizeof requested);
    (void)snprintf(ret_text, text_size,
                   "requested-chassis=%s activation-strategy=%s chassis=%s additional=%s requested-additional=%s "
                   "activated=%s up=%s",
                   lsp.requested[0] ? lsp.requested : "none",
                   lsp.held           ? STRATEGY
                   : lsp.has_strategy ? "other"
                                      : "none",
                   name_of(chassis, b.chassis), additional, requested, b.activated ? b.activated : "none",
                   b.up ? "true" : "false");
    return 0;
}

/* ------------------------------------------------------------------ opening and closing */

static void op_close(struct lmo_fabric *base)
{
    if (!base)
        return;
    struct ovn_fabric *f = self(base);
    lmo_ovsdb_close(f->nb);
    lmo_ovsdb_close(f->sb);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static const struct lmo_fabric_ops ops = {
    .name = "ovn",
    .close = op_close,
    .check = ovn_check,
    .preload = op_preload,
    .dual = op_dual,
    .await_bound = op_await_bound,
    .single = op_single,
    .check_unbound = ovn_check_unbound,
    .assign = op_assign,
    .observe = op_observe,
};

static const struct lmo_ovsdb_need nb_needs[] = {
    {"NB_Global", "nb_cfg"},
    {"Logical_Switch_Port", "name"},
    {"Logical_Switch_Port", "options"},
    {"Logical_Switch_Port", "up"},
    {"Logical_Switch", "ports"},
    {"Logical_Switch", "acls"},
    {"Logical_Switch", "load_balancer"},
    {"Logical_Switch", "load_balancer_group"},
    {"Load_Balancer_Group", "load_balancer"},
    {"Port_Group", "ports"},
    {"Port_Group", "acls"},
    {"ACL", "action"},
    {"NAT", "logical_port"},
    {"NAT", "external_mac"},
};

/* requested_additional_chassis came with OVN 22.06; activation strategies, which no column shows, with 22.09: on 22.06 a
 * port is never held, and await_installed says so. */
static const struct lmo_ovsdb_need sb_needs[] = {
    {"Chassis", "name"},
    {"Chassis", "hostname"},
    {"Chassis_Private", "nb_cfg"},
    {"Port_Binding", "chassis"},
    {"Port_Binding", "additional_chassis"},
    {"Port_Binding", "requested_additional_chassis"},
    {"Port_Binding", "options"},
    {"Port_Binding", "up"},
};

#define NEEDED_OVN "OVN 22.09 or newer"

int lmo_fabric_ovn_open(const char *northbound, const char *southbound, struct lmo_fabric **ret, struct lmo_err *err)
{
    struct ovn_fabric *f = calloc(1, sizeof *f);
    if (!f)
        return lmo_fail(err, LMO_E_NO_MEMORY, "fabric driver: out of memory");
    f->base.ops = &ops;
    pthread_mutex_init(&f->lock, NULL);
    struct lmo_ovsdb_config nb = {.name = "northbound database",
                                  .remotes = northbound,
                                  .database = "OVN_Northbound",
                                  .needs = nb_needs,
                                  .need_count = sizeof nb_needs / sizeof nb_needs[0],
                                  .needs_what = NEEDED_OVN};
    struct lmo_ovsdb_config sb = {.name = "southbound database",
                                  .remotes = southbound,
                                  .database = "OVN_Southbound",
                                  .needs = sb_needs,
                                  .need_count = sizeof sb_needs / sizeof sb_needs[0],
                                  .needs_what = NEEDED_OVN};
    int r = lmo_ovsdb_open(&nb, &f->nb, err);
    if (r == 0)
        r = lmo_ovsdb_open(&sb, &f->sb, err);
    if (r < 0) {
        op_close(&f->base);
        return r;
    }
    *ret = &f->base;
    return 0;
}
