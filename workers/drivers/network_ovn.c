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
 * Between the wiring of the interface and OVN's holding flows there is a moment (2 ms seen on an idle machine, much
 * more on a busy one) in which other hosts may deliver already. Frames of that moment would wait in the guest's
 * queue, and be answered a second time when it runs here. So the port is told not to forward as soon as it has a
 * number, until the hold is seen. This setting is the port's own: it ends with it, and OVN knows nothing of it.
 *
 * What is held is established from the flows themselves, not from "ovn-installed", which OVN sets once the port's
 * ordinary flows are in. */
#include "workers/drivers/network_ovn.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "workers/drivers/ovsdb.h"

#include <net/if.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define PORTS_MAX   256  /* being moved to this host at once */
#define SET_BACK_MS 2000 /* to let a port forward again after a wait that failed */

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
    bool wired;             /* in: wait for ovn-controller's word too; out: it is there */
    uint32_t ofport;        /* in: that number and no other; out: the number */
    char name[IF_NAMESIZE]; /* out: the interface's */
    char why[96];           /* what is still missing, for the error */
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
    (void)snprintf(w->name, sizeof w->name, "%s", strlen(name) < sizeof w->name ? name : "");
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
static int store_port(struct ovn_network *n, const struct lmo_port *port, uint32_t ofport,
                      const struct ovn_port_flows *f, struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf burst = LMO_BUF_INIT(OVN_BURST_MAX);
    int r = ovn_put_opening(&burst, port, ofport, f, err);
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

static uint32_t new_watch_id(struct ovn_network *n)
{
    pthread_mutex_lock(&n->lock);
    uint32_t id = n->next_watch_id;
    n->next_watch_id += 2;
    pthread_mutex_unlock(&n->lock);
    return id;
}

/* From the interface's first moment to OVN's hold; see the head of this file. */
static int await_wired_and_held(struct ovn_network *n, const struct lmo_port *port, struct lmo_ovsdb_watch *watch,
                                uint64_t deadline_ns, struct interface_wait *w, struct ovn_port_flows *ret,
                                struct lmo_err *err)
{
    struct lmo_openflow_port p = {0};
    struct ovn_port_flows early = {0};
    int r = await_interface(watch, port, w, deadline_ns, err);
    if (r == 0)
        r = lmo_openflow_find_port(n->of, w->ofport, deadline_ns, &p, err);
    if (r == LMO_E_NOT_FOUND) /* gone between the two looks: another one may come */
        return lmo_fail(err, LMO_E_UNAVAILABLE, "port %s: its interface went away", port->id);
    if (r < 0)
        return r;
    /* A port that OVN has finished with is never shut: it may be open for a guest that runs here already. */
    bool shut = !w->wired;
    if (shut) {
        r = ovn_set_forwarding(n->of, &p, false, deadline_ns, err);
        if (r == 0)
            r = ovn_read_flows(n->of, w->ofport, deadline_ns, &early, err);
        w->wired = true;
        if (r == 0)
            r = await_interface(watch, port, w, deadline_ns, err);
    }
    if (r == 0)
        r = ovn_await_held(n->of, port->id, w->ofport, new_watch_id(n), deadline_ns, ret, err);
    /* The guest has not run here yet, so whatever is queued for it was its source's to answer, and has been. */
    if (r == 0 && !ovn_empty_queue(w->name) && early.delivered > 0)
        lmo_log(LMO_LOG_WARN, "frames reached a port before it was held", "port=%s frames=%llu", port->id,
                (unsigned long long)early.delivered);
    if (shut || p.no_forward) { /* whatever came of it: a port left shut would be a trap for its next user */
        int opened =
            ovn_set_forwarding(n->of, &p, true, lmo_now_ns() + SET_BACK_MS * LMO_NS_PER_MS, r == 0 ? err : NULL);
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
    struct ovn_port_flows f = {0};
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
    struct ovn_port_flows f = {0};
    struct lmo_openflow_port p = {0};
    int r = check_port(port, err);
    if (r == 0)
        r = look_up_ofport(n, port, deadline_ns, &ofport, err);
    if (r == 0)
        r = ovn_read_flows(n->of, ofport, deadline_ns, &f, err);
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
