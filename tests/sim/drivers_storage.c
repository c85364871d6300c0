/* drivers_storage.c - the volume service's and the fabric's driver tables, and the host's side of the network.
 *
 * The volume service's table is durable, as the real driver's is: a fence is recorded before the service is asked, and
 * whoever opens the driver again first carries out what is recorded. */
#include "world.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ volumes */

struct volumes {
    struct lmo_volume_driver base;
    struct w_host *host;
};

static struct w_host *volumes_host(struct lmo_volume_driver *d)
{
    return ((struct volumes *)d)->host;
}

/* Of this service; NULL: of another one, or unknown. */
static struct w_volume *volume_of(struct lmo_volume_driver *d, const char *name)
{
    struct w_volume *v = world_volume(name);
    return v && &world.hosts[v->storage] == volumes_host(d) ? v : NULL;
}

static int no_volume(struct lmo_err *err, const char *name)
{
    return lmo_fail(err, LMO_E_NOT_FOUND, "no volume '%s' here", name);
}

static void vol_close(struct lmo_volume_driver *d)
{
    free(d);
}

static int vol_provision(struct lmo_volume_driver *d, const char *volume, const char *path, const char *format,
                         const char *host, uint64_t epoch, char ret_export[LMO_EXPORT_MAX], uint64_t timeout_ms,
                         struct lmo_err *err)
{
    (void)d, (void)volume, (void)path, (void)format, (void)host, (void)epoch, (void)ret_export, (void)timeout_ms;
    return lmo_fail(err, LMO_E_UNSUPPORTED, "volumes of the simulator are there from the beginning");
}

static int vol_retire(struct lmo_volume_driver *d, const char *volume, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)d, (void)volume, (void)timeout_ms;
    return lmo_fail(err, LMO_E_UNSUPPORTED, "volumes of the simulator stay");
}

static int vol_check(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, volumes_host(d), "check_volume", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_volume *v = volume_of(d, volume);
    const struct w_export *x = v ? world_export(v, export_name) : NULL;
    r = x && x->offered ? 0 : lmo_fail(err, LMO_E_REFUSED, "export '%s' is not offered", export_name);
    return sim_call_end(&c, r, err);
}

static int vol_attach(struct lmo_volume_driver *d, const char *volume, const char *host, uint64_t epoch,
                      char ret_export[LMO_EXPORT_MAX], uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, volumes_host(d), "attach", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_volume *v = volume_of(d, volume);
    if (!v) {
        return sim_call_end(&c, no_volume(err, volume), err);
    }
    char name[LMO_EXPORT_MAX];
    snprintf(name, sizeof name, "%.60s.%.60s.e%llu", volume, host, (unsigned long long)epoch);
    struct w_export *x = world_export(v, name);
    if (!x) {
        x = world_export(v, "");
        if (!x) {
            return sim_call_end(&c, lmo_fail(err, LMO_E_LIMIT, "no room for another export of '%s'", volume), err);
        }
        memcpy(x->name, name, sizeof x->name);
        snprintf(x->host, sizeof x->host, "%s", host);
        x->epoch = epoch;
        x->fenced = false;
    }
    if (x->fenced) {
        return sim_call_end(&c, lmo_fail(err, LMO_E_REFUSED, "export '%s' was fenced", name), err);
    }
    x->offered = true;
    check_offered(v, name);
    world_changed();
    r = sim_call_end(&c, 0, err);
    if (r == 0) {
        memcpy(ret_export, name, sizeof name);
    }
    return r;
}

static int vol_fence(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    struct sim_call c;
    struct w_volume *v = volume_of(d, volume);
    struct w_export *x = v ? world_export(v, export_name) : NULL;
    /* Recorded first, whatever the service then says. */
    if (x && !x->fenced) {
        x->fenced = true;
        memcpy(v->fenced_names[v->fenced_count++ % W_EXPORTS], x->name, sizeof x->name);
    }
    int r = sim_call_begin(&c, volumes_host(d), "fence", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    x = v ? world_export(v, export_name) : NULL;
    if (!x) {
        return sim_call_end(&c, lmo_fail(err, LMO_E_NOT_FOUND, "no export '%s'", export_name), err);
    }
    x->offered = (world.lies & W_LIE_FENCE) != 0;
    sim_trace("fenced export=%s", export_name);
    world_changed();
    return sim_call_end(&c, 0, err);
}

static int vol_verify(struct lmo_volume_driver *d, const char *volume, const char *fenced_export,
                      const char *holder_export, uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, volumes_host(d), "verify", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_volume *v = volume_of(d, volume);
    const struct w_export *f = v ? world_export(v, fenced_export) : NULL;
    const struct w_export *x = v ? world_export(v, holder_export) : NULL;
    bool holds = f && f->fenced && (!f->offered || (world.lies & W_LIE_FENCE));
    r = holds && x && x->offered ? 0 : lmo_fail(err, LMO_E_REFUSED, "the fence does not hold");
    return sim_call_end(&c, r, err);
}

static int vol_detach(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, volumes_host(d), "detach", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_volume *v = volume_of(d, volume);
    struct w_export *x = v ? world_export(v, export_name) : NULL;
    if (x) {
        *x = (struct w_export){0};
        world_changed();
    }
    return sim_call_end(&c, 0, err);
}

static int vol_observe(struct lmo_volume_driver *d, const char *volume, struct lmo_volume_state *ret,
                       uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, volumes_host(d), "observe_volume", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    const struct w_volume *v = volume_of(d, volume);
    if (!v) {
        return sim_call_end(&c, no_volume(err, volume), err);
    }
    struct lmo_volume_state s = {.size_bytes = UINT64_C(1) << 30};
    snprintf(s.volume, sizeof s.volume, "%s", volume);
    for (unsigned i = 0; i < W_EXPORTS && s.export_count < 8; i++) {
        const struct w_export *x = &v->exports[i];
        if (x->name[0]) {
            memcpy(s.exports[s.export_count].name, x->name, sizeof x->name);
            memcpy(s.exports[s.export_count].host, x->host, sizeof x->host);
            s.exports[s.export_count].epoch = x->epoch;
            s.exports[s.export_count].offered = x->offered;
            s.exports[s.export_count++].fenced = x->fenced;
        }
    }
    r = sim_call_end(&c, 0, err);
    if (r == 0) {
        *ret = s;
    }
    return r;
}

static int vol_list(struct lmo_volume_driver *d, int (*cb)(void *arg, const char *volume), void *arg,
                    struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, volumes_host(d), "list_volumes", 5000, err);
    if (r < 0) {
        return r;
    }
    for (unsigned i = 0; i < world.volume_count; i++) {
        if (&world.hosts[world.volumes[i].storage] == volumes_host(d) && cb(arg, world.volumes[i].name) != 0) {
            break;
        }
    }
    return sim_call_end(&c, 0, err);
}

static const struct lmo_volume_ops volume_ops = {
    .name = "sim",
    .close = vol_close,
    .provision = vol_provision,
    .retire = vol_retire,
    .check = vol_check,
    .attach = vol_attach,
    .fence = vol_fence,
    .verify = vol_verify,
    .detach = vol_detach,
    .observe = vol_observe,
    .list = vol_list,
};

struct lmo_volume_driver *sim_volume_open(struct w_host *h)
{
    struct volumes *d = calloc(1, sizeof *d);
    lmo_assert(d);
    *d = (struct volumes){.base.ops = &volume_ops, .host = h};
    for (unsigned i = 0; i < world.volume_count; i++) {
        struct w_volume *v = &world.volumes[i];
        for (unsigned x = 0; x < W_EXPORTS && &world.hosts[v->storage] == h; x++) {
            v->exports[x].offered = v->exports[x].offered && !v->exports[x].fenced;
        }
    }
    return &d->base;
}

/* ------------------------------------------------------------------ fabric */

struct fabric {
    struct lmo_fabric base;
    struct w_host *host;
};

static struct w_host *fabric_host(struct lmo_fabric *f)
{
    return ((struct fabric *)f)->host;
}

static int no_port(struct lmo_err *err, const char *id)
{
    return lmo_fail(err, LMO_E_REFUSED, "no port '%s'", id);
}

static void fab_close(struct lmo_fabric *f)
{
    free(f);
}

static int fab_check(struct lmo_fabric *f, const struct lmo_port *port, const char *source, const char *destination,
                     bool accept_stateful_loss, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)destination, (void)accept_stateful_loss;
    struct sim_call c;
    int r = sim_call_begin(&c, fabric_host(f), "check_port", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    const struct w_port *p = world_port(port->id);
    if (!p) {
        r = no_port(err, port->id);
    } else if (p->bound != (int)world_host_index(source)) {
        r = lmo_fail(err, LMO_E_REFUSED, "port '%s' is not bound at '%s'", port->id, source);
    }
    return sim_call_end(&c, r, err);
}

static int fab_preload(struct lmo_fabric *f, const char *destination, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)destination;
    struct sim_call c;
    int r = sim_call_begin(&c, fabric_host(f), "preload", timeout_ms, err);
    return r < 0 ? r : sim_call_end(&c, 0, err);
}

static int fab_dual(struct lmo_fabric *f, const struct lmo_port *port, const char *source, const char *destination,
                    uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, fabric_host(f), "dual", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_port *p = world_port(port->id);
    int to = (int)world_host_index(destination);
    if (!p) {
        r = no_port(err, port->id);
    } else if (p->bound != (int)world_host_index(source)) {
        r = lmo_fail(err, LMO_E_REFUSED, "port '%s' is not bound at '%s'", port->id, source);
    } else {
        if (p->additional != to) {
            p->activated = false;
        }
        p->additional = to;
        world_changed();
    }
    return sim_call_end(&c, r, err);
}

/* The guest's interface is at that host. */
static bool has_interface(const char *port, unsigned host)
{
    for (unsigned g = 0; g < world.guest_count; g++) {
        for (unsigned i = 0; i < world.guests[g].port_count; i++) {
            if (strcmp(world.ports[world.guests[g].ports[i]].id, port) == 0) {
                return world.guests[g].copies[host].process;
            }
        }
    }
    return false;
}

static int fab_await_bound(struct lmo_fabric *f, const struct lmo_port *port, const char *destination,
                           uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, fabric_host(f), "await_bound", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    const struct w_port *p = world_port(port->id);
    unsigned to = world_host_index(destination);
    while (p && r == 0 && !(p->additional == (int)to && has_interface(port->id, to))) {
        if (!sim_wait(&world.changed, c.deadline_ns)) {
            r = lmo_fail(err, LMO_E_TIMEOUT, "port '%s' is not bound at '%s'", port->id, destination);
        }
    }
    return sim_call_end(&c, p ? r : no_port(err, port->id), err);
}

static int fab_single(struct lmo_fabric *f, const struct lmo_port *port, const char *host, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, fabric_host(f), "single", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_port *p = world_port(port->id);
    if (p) {
        p->bound = (int)world_host_index(host);
        p->requested = p->requested >= 0 ? p->bound : -1;
        p->additional = -1;
        p->activated = false;
        world_changed();
    }
    return sim_call_end(&c, p ? 0 : no_port(err, port->id), err);
}

static int fab_check_unbound(struct lmo_fabric *f, const struct lmo_port *port, const char *source,
                             const char *destination, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)destination;
    struct sim_call c;
    int r = sim_call_begin(&c, fabric_host(f), "check_unbound", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    const struct w_port *p = world_port(port->id);
    if (!p) {
        r = no_port(err, port->id);
    } else if (p->bound >= 0) {
        r = lmo_fail(err, LMO_E_REFUSED, "port '%s' is bound", port->id);
    } else if (p->requested >= 0 && p->requested != (int)world_host_index(source)) {
        r = lmo_fail(err, LMO_E_REFUSED, "port '%s' is requested elsewhere", port->id);
    }
    return sim_call_end(&c, r, err);
}

static int fab_assign(struct lmo_fabric *f, const struct lmo_port *port, const char *host, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, fabric_host(f), "assign", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_port *p = world_port(port->id);
    unsigned to = world_host_index(host);
    if (p && p->requested >= 0) {
        p->requested = (int)to;
        p->bound = has_interface(p->id, to) ? (int)to : -1;
        world_changed();
    }
    return sim_call_end(&c, p ? 0 : no_port(err, port->id), err);
}

static int fab_observe(struct lmo_fabric *f, const struct lmo_port *port, char *ret_text, size_t text_size,
                       uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, fabric_host(f), "observe_port", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    const struct w_port *p = world_port(port->id);
    if (!p) {
        return sim_call_end(&c, no_port(err, port->id), err);
    }
    snprintf(ret_text, text_size, "bound=%d additional=%d activated=%d", p->bound, p->additional, p->activated);
    return sim_call_end(&c, 0, err);
}

static const struct lmo_fabric_ops fabric_ops = {
    .name = "sim",
    .close = fab_close,
    .check = fab_check,
    .preload = fab_preload,
    .dual = fab_dual,
    .await_bound = fab_await_bound,
    .single = fab_single,
    .check_unbound = fab_check_unbound,
    .assign = fab_assign,
    .observe = fab_observe,
};

struct lmo_fabric *sim_fabric_open(struct w_host *h)
{
    struct fabric *f = calloc(1, sizeof *f);
    lmo_assert(f);
    *f = (struct fabric){.base.ops = &fabric_ops, .host = h};
    return &f->base;
}

/* ------------------------------------------------------------------ the host's side */

struct network {
    struct lmo_network base;
    struct w_host *host;
};

static struct w_host *network_host(struct lmo_network *n)
{
    return ((struct network *)n)->host;
}

static void net_close(struct lmo_network *n)
{
    free(n);
}

/* Open vSwitch is another program than libvirtd: that one's troubles are not the network's. */
static struct w_host healthy;

static int net_await_installed(struct lmo_network *n, const struct lmo_port *port, uint64_t timeout_ms,
                               struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, &healthy, "await_installed", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    unsigned host = (unsigned)(network_host(n) - world.hosts);
    while (r == 0 && !has_interface(port->id, host)) {
        if (!sim_wait(&world.changed, c.deadline_ns)) {
            r = lmo_fail(err, LMO_E_TIMEOUT, "port '%s' has no interface here", port->id);
        }
    }
    return sim_call_end(&c, r, err);
}

/* On the worker's loop: nobody is waited for. */
static int net_activate(struct lmo_network *n, const struct lmo_port *port, struct lmo_err *err)
{
    enum sim_fate fate = sim_observe(SIM_POINT_DRIVER);
    world.calls++;
    sim_sleep(20 * SIM_US);
    if (fate == SIM_FATE_FAIL || fate == SIM_FATE_LOST) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "activate: made to fail");
    }
    struct w_port *p = world_port(port->id);
    if (p && p->additional == network_host(n) - world.hosts) {
        p->activated = true;
        world.early_ingress++;
        world_changed();
    }
    sim_after(fate);
    return 0;
}

static int net_activated(struct lmo_network *n, const struct lmo_port *port, bool *ret_open, uint64_t timeout_ms,
                         struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, &healthy, "activated", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    const struct w_port *p = world_port(port->id);
    int host = (int)(network_host(n) - world.hosts);
    bool open = p && (p->bound == host || (p->additional == host && p->activated));
    r = sim_call_end(&c, 0, err);
    if (r == 0) {
        *ret_open = open;
    }
    return r;
}

static void net_release(struct lmo_network *n, const struct lmo_port *port)
{
    (void)n;
    (void)port;
}

static const struct lmo_network_ops network_ops = {
    .name = "sim",
    .close = net_close,
    .await_installed = net_await_installed,
    .activate = net_activate,
    .activated = net_activated,
    .release = net_release,
};

struct lmo_network *sim_network_open(struct w_host *h)
{
    struct network *n = calloc(1, sizeof *n);
    lmo_assert(n);
    *n = (struct network){.base.ops = &network_ops, .host = h};
    return &n->base;
}
