/* network_ovn.c - the host side of OVN: is the port's interface here and wired, and opening its held ingress.
 *
 * While a port is bound to two chassis with `activation-strategy=rarp`, ovn-controller holds the additional one with
 * flows that drop what comes from the guest's interface and what goes to it, until a RARP comes from the guest. QEMU
 * sends one when its state is loaded, which costs the whole pause in packets. `activate` does two things in one burst
 * over a connection that is open already (docs/adr/0008-early-ingress.md has the figures):
 *   1. the RARP, so that OVN opens the port by its own rules, remembers it, and agrees with what follows;
 *   2. removal of exactly those dropping flows, as they were read before, so that nobody waits for ovn-controller's
 * turn. Everything in it was prepared by await_installed: activate is one write to a socket.
 *
 * Between the wiring of the interface and OVN's holding flows there is a moment (2 ms seen on an idle machine, much more
 * on a busy one) in which other hosts may deliver already. Frames of that moment would wait in the guest's queue, and be
 * answered a second time when it runs here. So the port is told not to forward as soon as it has a number, until the
 * hold is seen. This setting is the port's own: it ends with it, and OVN knows nothing of it.
 *
 * What is held is established from the flows themselves, not from "ovn-installed", which OVN sets once the port's
 * ordinary flows are in. */
#include "workers/drivers/driver.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "workers/drivers/openflow.h"
#include "workers/drivers/ovsdb.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define PORTS_MAX     256 /* being moved to this host at once */
#define HOLDS_MAX     4   /* dropping flows of one held port; OVN makes two */
#define BURST_MAX     4096
#define SET_BACK_MS   2000 /* to let a port forward again after a wait that failed */
#define TABLE_IN      0    /* OVN's physical-to-logical table: from the guest */
#define TABLE_OUT     65   /* OVN's logical-to-physical table: to the guest */
#define HOLD_PRIORITY 1000 /* of the flows that hold; the port's ordinary flows have 100 or 150 */

/* What the bridge has for one port. */
struct port_flows {
    uint64_t cookie; /* of the port's ordinary flow in TABLE_IN; OVN gives all flows of a port binding the same */
    bool wired;      /* ordinary flows in both directions */
    bool wired_in, wired_out;
    unsigned hold_count;
    bool holds_in, holds_out;
    uint64_t delivered; /* frames let through to the guest's interface so far (the count lags by up to a second) */
    struct lmo_openflow_flow holds[HOLDS_MAX];
};

struct prepared_port {
    char id[LMO_NAME_MAX]; /* empty: free */
    struct lmo_buf burst;  /* what opens it */
};

struct ovn_network {
    struct lmo_network base;
    struct lmo_ovsdb *ovs;
    struct lmo_openflow *of;
    pthread_mutex_t lock;   /* guards what follows */
    uint32_t next_watch_id; /* of flow subscriptions; each wait takes two */
    struct prepared_port ports[PORTS_MAX];
};

static struct ovn_network *self(struct lmo_network *n)
{
    return (struct ovn_network *)n; /* base is the first member */
}

static int check_port(const struct lmo_port *port, struct lmo_err *err)
{
    if (!port->id[0])
        return lmo_fail(
            err, LMO_E_INVALID,
            "port %s (%s): no OVN logical port: the domain's interface needs a virtualport of type openvswitch "
            "with an interfaceid",
            port->mac, port->device[0] ? port->device : "no device");
    return 0;
}

/* ------------------------------------------------------------------ the interface, from the local database */

static const char *const interface_columns[] = {"name", "external_ids", "ofport", "error", NULL};

static json_t *interface_where(const char *port_id)
{
    return json_pack("[[ss[s[[ss]]]]]", "external_ids", "includes", "map", "iface-id", port_id);
}

struct interface_wait {
    bool wired;      /* in: wait for ovn-controller's word too; out: it is there */
    uint32_t ofport; /* in: that number and no other; out: the number */
    char why[96];    /* what is still missing, for the error */
};

/* lmo_ovsdb_until_fn: exactly one interface of that id, with a port number, and wired by ovn-controller if wanted. */
static int interface_is_there(void *arg, const json_t *rows, struct lmo_err *err)
{
    struct interface_wait *w = arg;
    if (json_object_size(rows) != 1) {
        (void)snprintf(w->why, sizeof w->why, "%zu interfaces carry its id", json_object_size(rows));
        return 0;
    }
    const json_t *row = json_object_iter_value(json_object_iter((json_t *)rows));
    const char *name = lmo_ovsdb_string(json_object_get(row, "name"));
    const char *problem = lmo_ovsdb_string(json_object_get(row, "error"));
    const char *installed = lmo_ovsdb_map_get(json_object_get(row, "external_ids"), "ovn-installed");
    int64_t ofport = -1;
    name = name ? name : "?";
    if (!lmo_ovsdb_integer(json_object_get(row, "ofport"), &ofport) || ofport < 1 || ofport > UINT16_MAX) {
        (void)snprintf(w->why, sizeof w->why, "interface %.15s has no port number (%.40s)", name,
                       problem ? problem : "yet");
        return 0;
    }
    if (w->ofport && w->ofport != (uint32_t)ofport)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "interface %s was replaced meanwhile", name);
    bool wired = installed && strcmp(installed, "true") == 0;
    if (w->wired && !wired) {
        (void)snprintf(w->why, sizeof w->why, "ovn-controller has not wired interface %.15s", name);
        return 0;
    }
    w->wired = wired;
    w->ofport = (uint32_t)ofport;
    return 1;
}

static int await_interface(struct lmo_ovsdb_watch *watch, const struct lmo_port *port, struct interface_wait *w,
                           uint64_t deadline_ns, struct lmo_err *err)
{
    int r = lmo_ovsdb_watch_wait(watch, interface_is_there, w, deadline_ns, err);
    return r == LMO_E_TIMEOUT ? lmo_fail(err, LMO_E_UNAVAILABLE, "port %s is not installed here: %s", port->id, w->why)
                              : r;
}

/* ------------------------------------------------------------------ its flows, from the bridge */

static void see_ordinary(void *arg, const struct lmo_openflow_flow *flow)
{
    struct port_flows *f = arg;
    if (flow->drops || flow->priority >= HOLD_PRIORITY || flow->priority < 100)
        return;
    f->wired_in = true;
    f->cookie = flow->cookie;
}

static void see_flow(void *arg, const struct lmo_openflow_flow *flow)
{
    struct port_flows *f = arg;
    if (flow->table_id == TABLE_OUT && !flow->drops && flow->priority < HOLD_PRIORITY) {
        f->wired_out = true;
        f->delivered += flow->packets;
    }
    if (!flow->drops || flow->priority != HOLD_PRIORITY || f->hold_count == HOLDS_MAX)
        return;
    if (flow->table_id != TABLE_IN && flow->table_id != TABLE_OUT)
        return;
    f->holds_in |= flow->table_id == TABLE_IN;
    f->holds_out |= flow->table_id == TABLE_OUT;
    f->holds[f->hold_count++] = *flow;
}

static int read_flows(struct ovn_network *n, uint32_t ofport, uint64_t deadline_ns, struct port_flows *ret,
                      struct lmo_err *err)
{
    struct port_flows f = {0};
    struct lmo_openflow_query in = {.table_id = TABLE_IN, .in_port = ofport};
    int r = lmo_openflow_flows(n->of, &in, see_ordinary, &f, deadline_ns, err);
    if (r == 0 && f.wired_in) {
        struct lmo_openflow_query all = {.table_id = LMO_OPENFLOW_TABLE_ALL,
                                         .cookie = f.cookie,
                                         .cookie_mask = UINT64_MAX};
        r = lmo_openflow_flows(n->of, &all, see_flow, &f, deadline_ns, err);
    }
    if (r < 0)
        return r;
    f.wired = f.wired_in && f.wired_out;
    *ret = f;
    return 0;
}

/* Waits until the port is wired and held in both directions. */
static int await_held(struct ovn_network *n, const struct lmo_port *port, uint32_t ofport, uint64_t deadline_ns,
                      struct port_flows *ret, struct lmo_err *err)
{
    for (;;) {
        uint64_t seen = lmo_openflow_changes(n->of); /* before the look: no change is missed in between */
        int r = read_flows(n, ofport, deadline_ns, ret, err);
        if (r < 0 || (ret->wired && ret->holds_in && ret->holds_out))
            return r;
        r = lmo_openflow_await_change(n->of, seen, deadline_ns, err);
        if (r < 0)
            return lmo_fail(err, LMO_E_UNAVAILABLE, "port %s (number %u): %s", port->id, (unsigned)ofport,
                            !ret->wired
                                ? "its flows are not installed"
                                : "wired, but not held: it is not an additional chassis, or was opened already");
    }
}

/* ------------------------------------------------------------------ the burst */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "52:54:00:a9:57:a7"; lower case, as struct lmo_port has it. */
static bool parse_mac(const char *text, uint8_t ret[6])
{
    if (strlen(text) != 17)
        return false;
    for (size_t i = 0, at = 0; i < 6; i++, at += 3) {
        int high = hex_digit(text[at]), low = hex_digit(text[at + 1]);
        if (high < 0 || low < 0 || text[at + 2] != (i < 5 ? ':' : '\0'))
            return false;
        ret[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* The frame QEMU would send: RFC 903, a station asking for its own address, padded to Ethernet's minimum. */
static bool make_rarp(const char *mac, uint8_t ret_frame[60])
{
    static const uint8_t fixed[] = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};
    uint8_t m[6];
    if (!parse_mac(mac, m))
        return false;
    memset(ret_frame, 0, 60);
    memset(ret_frame, 0xff, 6);
    memcpy(ret_frame + 6, m, sizeof m);
    memcpy(ret_frame + 12, fixed, sizeof fixed);
    memcpy(ret_frame + 22, m, sizeof m);
    memcpy(ret_frame + 32, m, sizeof m);
    return true;
}

/* Order matters: once the hold were gone, the RARP would pass as an ordinary frame and OVN would never learn. */
static int prepare_burst(const struct lmo_port *port, uint32_t ofport, const struct port_flows *f,
                         struct lmo_buf *burst, struct lmo_err *err)
{
    uint8_t rarp[60];
    if (!make_rarp(port->mac, rarp))
        return lmo_fail(err, LMO_E_INVALID, "port %s: '%s' is no MAC address", port->id, port->mac);
    lmo_buf_reset(burst);
    int r = lmo_openflow_put_packet_out(burst, ofport, rarp, sizeof rarp);
    for (unsigned i = 0; r == 0 && i < f->hold_count; i++)
        r = lmo_openflow_put_delete(burst, &f->holds[i]);
    if (r < 0)
        lmo_buf_reset(burst);
    return r < 0 ? lmo_fail(err, r, "port %s: burst not prepared", port->id) : 0;
}

/* ------------------------------------------------------------------ prepared ports */

/* Locked. */
static struct prepared_port *find_port(struct ovn_network *n, const char *id)
{
    for (size_t i = 0; i < PORTS_MAX; i++) {
        if (strcmp(n->ports[i].id, id) == 0)
            return &n->ports[i];
    }
    return NULL;
}

/* Keeps what opens the port, in place of anything kept before. */
static int store_port(struct ovn_network *n, const struct lmo_port *port, uint32_t ofport, const struct port_flows *f,
                      struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf burst = LMO_BUF_INIT(BURST_MAX);
    int r = prepare_burst(port, ofport, f, &burst, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&n->lock);
    struct prepared_port *p = find_port(n, port->id);
    p = p ? p : find_port(n, "");
    if (p) {
        (void)snprintf(p->id, sizeof p->id, "%s", port->id);
        lmo_buf_done(&p->burst);
        p->burst = burst;
        burst = LMO_BUF_INIT(0); /* taken */
    }
    pthread_mutex_unlock(&n->lock);
    return p ? 0 : lmo_fail(err, LMO_E_LIMIT, "%d ports are being moved to this host already", PORTS_MAX);
}

/* ------------------------------------------------------------------ the driver's functions */

static void op_release(struct lmo_network *base, const struct lmo_port *port)
{
    struct ovn_network *n = self(base);
    if (!port->id[0])
        return;
    pthread_mutex_lock(&n->lock);
    struct prepared_port *p = find_port(n, port->id);
    if (p) {
        lmo_buf_done(&p->burst);
        *p = (struct prepared_port){0};
    }
    pthread_mutex_unlock(&n->lock);
}

/* Waits until the port's flows say that it is wired and held, woken by changes of the two tables. */
static int await_flows(struct ovn_network *n, const struct lmo_port *port, uint32_t ofport, uint64_t deadline_ns,
                       struct port_flows *ret, struct lmo_err *err)
{
    pthread_mutex_lock(&n->lock);
    uint32_t id = n->next_watch_id;
    n->next_watch_id += 2;
    pthread_mutex_unlock(&n->lock);
    int r = lmo_openflow_watch(n->of, id, TABLE_IN, ofport, err);
    if (r < 0)
        return r;
    r = lmo_openflow_watch(n->of, id + 1, TABLE_OUT, 0, err);
    if (r == 0) {
        r = await_held(n, port, ofport, deadline_ns, ret, err);
        lmo_openflow_unwatch(n->of, id + 1);
    }
    lmo_openflow_unwatch(n->of, id);
    return r;
}

/* Tells the port to forward or not, and waits until it does. */
static int set_forwarding(struct ovn_network *n, const struct lmo_openflow_port *p, bool forward, uint64_t deadline_ns,
                          struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf burst = LMO_BUF_INIT(BURST_MAX);
    int r = lmo_openflow_put_forwarding(&burst, p, forward);
    if (r < 0)
        return lmo_fail(err, r, "out of memory");
    r = lmo_openflow_send(n->of, &burst, err);
    return r < 0 ? r : lmo_openflow_barrier(n->of, deadline_ns, err);
}

/* From the interface's first moment to OVN's hold; see the head of this file. */
static int await_wired_and_held(struct ovn_network *n, const struct lmo_port *port, struct lmo_ovsdb_watch *watch,
                                uint64_t deadline_ns, struct interface_wait *w, struct port_flows *ret,
                                struct lmo_err *err)
{
    struct lmo_openflow_port p;
    struct port_flows early = {0};
    int r = await_interface(watch, port, w, deadline_ns, err);
    if (r == 0)
        r = lmo_openflow_find_port(n->of, w->ofport, deadline_ns, &p, err);
    if (r < 0)
        return r;
    /* A port that OVN has finished with is never shut: it may be open for a guest that runs here already. */
    bool shut = !w->wired;
    if (shut) {
        r = set_forwarding(n, &p, false, deadline_ns, err);
        if (r == 0)
            r = read_flows(n, w->ofport, deadline_ns, &early, err);
        w->wired = true;
        if (r == 0)
            r = await_interface(watch, port, w, deadline_ns, err);
    }
    if (r == 0)
        r = await_flows(n, port, w->ofport, deadline_ns, ret, err);
    if (early.delivered > 0)
        lmo_log(LMO_LOG_WARN, "frames reached a port before it was held", "port=%s frames=%llu", port->id,
                (unsigned long long)early.delivered);
    if (shut || p.no_forward) { /* whatever came of it: a port left shut would be a trap for its next user */
        int opened = set_forwarding(n, &p, true, lmo_now_ns() + SET_BACK_MS * LMO_NS_PER_MS, r == 0 ? err : NULL);
        r = r < 0 ? r : opened;
    }
    return r;
}

static int op_await_installed(struct lmo_network *base, const struct lmo_port *port, uint64_t timeout_ms,
                              struct lmo_err *err)
{
    struct ovn_network *n = self(base);
    uint64_t deadline_ns = lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;
    struct lmo_ovsdb_watch *watch = NULL;
    struct interface_wait w = {.why = "not looked at"};
    struct port_flows f = {0};
    op_release(base, port); /* whatever was prepared belongs to an interface that may be another one now */
    int r = check_port(port, err);
    if (r == 0)
        r = lmo_openflow_await_ready(n->of, deadline_ns, err);
    if (r == 0)
        r = lmo_ovsdb_watch_open(n->ovs, "Interface", interface_where(port->id), interface_columns, deadline_ns, &watch,
                                 err);
    if (r == 0)
        r = await_wired_and_held(n, port, watch, deadline_ns, &w, &f, err);
    lmo_ovsdb_watch_close(watch);
    if (r == 0)
        r = store_port(n, port, w.ofport, &f, err);
    if (r == 0)
        lmo_log(LMO_LOG_DEBUG, "port installed and held", "port=%s ofport=%u", port->id, (unsigned)w.ofport);
    return r;
}

static int op_activate(struct lmo_network *base, const struct lmo_port *port, struct lmo_err *err)
{
    struct ovn_network *n = self(base);
    int r = check_port(port, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&n->lock);
    struct prepared_port *p = find_port(n, port->id);
    if (!p || p->burst.len == 0)
        r = lmo_fail(err, LMO_E_UNAVAILABLE, "port %s: nothing was prepared for it here", port->id);
    else
        r = lmo_openflow_send(n->of, &p->burst, err);
    pthread_mutex_unlock(&n->lock);
    return r;
}

/* The port's number now: from the database, because nothing need have been prepared (the worker was restarted). */
static int look_up_ofport(struct ovn_network *n, const struct lmo_port *port, uint64_t deadline_ns, uint32_t *ret,
                          struct lmo_err *err)
{
    json_t *rows = NULL;
    int r =
        lmo_ovsdb_select(n->ovs, "Interface", interface_where(port->id), interface_columns, deadline_ns, &rows, err);
    if (r < 0)
        return r;
    int64_t ofport = -1;
    size_t count = json_array_size(rows);
    bool there =
        count == 1 && lmo_ovsdb_integer(json_object_get(json_array_get(rows, 0), "ofport"), &ofport) && ofport > 0;
    json_decref(rows);
    if (!there)
        return lmo_fail(err, LMO_E_NOT_FOUND, "port %s: %zu interfaces here carry its id%s", port->id, count,
                        count == 1 ? ", without a port number" : "");
    *ret = (uint32_t)ofport;
    return 0;
}

static int op_activated(struct lmo_network *base, const struct lmo_port *port, bool *ret_open, uint64_t timeout_ms,
                        struct lmo_err *err)
{
    struct ovn_network *n = self(base);
    uint64_t deadline_ns = lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;
    uint32_t ofport = 0;
    struct port_flows f = {0};
    struct lmo_openflow_port p = {0};
    int r = check_port(port, err);
    if (r == 0)
        r = look_up_ofport(n, port, deadline_ns, &ofport, err);
    if (r == 0)
        r = read_flows(n, ofport, deadline_ns, &f, err);
    if (r == 0)
        r = lmo_openflow_find_port(n->of, ofport, deadline_ns, &p, err);
    if (r == 0)
        *ret_open = f.wired && f.hold_count == 0 && !p.no_forward;
    return r;
}

static void op_close(struct lmo_network *base)
{
    if (!base)
        return;
    struct ovn_network *n = self(base);
    lmo_ovsdb_close(n->ovs);
    lmo_openflow_close(n->of);
    for (size_t i = 0; i < PORTS_MAX; i++)
        lmo_buf_done(&n->ports[i].burst);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

static const struct lmo_network_ops ops = {
    .name = "ovn",
    .close = op_close,
    .await_installed = op_await_installed,
    .activate = op_activate,
    .activated = op_activated,
    .release = op_release,
};

/* A bare path is a unix socket, as Open vSwitch's own tools have it. */
static void as_remote(const char *text, char ret[LMO_URL_MAX])
{
    (void)snprintf(ret, LMO_URL_MAX, "%s%s", text[0] == '/' ? "unix:" : "", text);
}

int lmo_network_ovn_open(const char *ovsdb, const char *openflow, const char *bridge, struct lmo_network **ret,
                         struct lmo_err *err)
{
    static const struct lmo_ovsdb_need needs[] = {{"Interface", "name"},
                                                  {"Interface", "external_ids"},
                                                  {"Interface", "ofport"},
                                                  {"Interface", "error"}};
    char remote[LMO_URL_MAX], switch_remote[LMO_URL_MAX];
    as_remote(ovsdb, remote);
    as_remote(openflow, switch_remote);
    struct ovn_network *n = calloc(1, sizeof *n);
    if (!n)
        return lmo_fail(err, LMO_E_NO_MEMORY, "network driver: out of memory");
    n->base.ops = &ops;
    n->next_watch_id = 1;
    pthread_mutex_init(&n->lock, NULL);
    struct lmo_ovsdb_config cfg = {.name = "Open vSwitch database",
                                   .remotes = remote,
                                   .database = "Open_vSwitch",
                                   .needs = needs,
                                   .need_count = sizeof needs / sizeof needs[0],
                                   .needs_what = "Open vSwitch 2.8 or newer"};
    int r = lmo_ovsdb_open(&cfg, &n->ovs, err);
    if (r == 0)
        r = lmo_openflow_open(bridge, switch_remote, &n->of, err);
    if (r < 0) {
        op_close(&n->base);
        return r;
    }
    *ret = &n->base;
    return 0;
}
