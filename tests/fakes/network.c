/* network.c - a fabric and the hosts' side of it: who gets a guest's frames. */
#include "fakes/internal.h"

struct fake_fabric {
    struct lmo_fabric base;
    struct fake_world *world;
};

static struct fake_world *fabric_world(struct lmo_fabric *f)
{
    return ((struct fake_fabric *)f)->world;
}

static void fab_close(struct lmo_fabric *f)
{
    free(f);
}

static int fab_check(struct lmo_fabric *f, const struct lmo_port *port, const char *source, const char *destination,
                     bool accept, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)port;
    (void)source;
    (void)destination;
    (void)accept;
    (void)timeout_ms;
    int r = 0;
    return fake_enter(fabric_world(f), FAKE_CHECK_PORT, &r, err) ? r : fake_leave(fabric_world(f), FAKE_CHECK_PORT, 0, err);
}

static int fab_preload(struct lmo_fabric *f, const char *destination, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)destination;
    (void)timeout_ms;
    int r = 0;
    return fake_enter(fabric_world(f), FAKE_PRELOAD, &r, err) ? r : fake_leave(fabric_world(f), FAKE_PRELOAD, 0, err);
}

static int fab_dual(struct lmo_fabric *f, const struct lmo_port *port, const char *source, const char *destination,
                    uint64_t timeout_ms, struct lmo_err *err)
{
    (void)source;
    (void)destination;
    (void)timeout_ms;
    struct fake_world *w = fabric_world(f);
    int r = 0;
    if (fake_enter(w, FAKE_DUAL, &r, err)) {
        return r;
    }
    fake_lock(w);
    struct fake_guest *g = fake_guest_of_port(w, port->id);
    if (g) {
        g->dual = true;
    }
    fake_unlock(w);
    return fake_leave(w, FAKE_DUAL, 0, err);
}

static int fab_await_bound(struct lmo_fabric *f, const struct lmo_port *port, const char *destination,
                           uint64_t timeout_ms, struct lmo_err *err)
{
    (void)port;
    (void)destination;
    (void)timeout_ms;
    int r = 0;
    return fake_enter(fabric_world(f), FAKE_AWAIT_BOUND, &r, err) ? r : fake_leave(fabric_world(f), FAKE_AWAIT_BOUND, 0, err);
}

static int fab_single(struct lmo_fabric *f, const struct lmo_port *port, const char *host, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = fabric_world(f);
    int r = 0;
    if (fake_enter(w, FAKE_SINGLE, &r, err)) {
        return r;
    }
    fake_lock(w);
    struct fake_guest *g = fake_guest_of_port(w, port->id);
    if (g) {
        g->dual = g->destination_open = false;
        LMO_COPY(g->single, host);
    }
    fake_unlock(w);
    return fake_leave(w, FAKE_SINGLE, 0, err);
}

static int fab_check_unbound(struct lmo_fabric *f, const struct lmo_port *port, const char *source,
                             const char *destination, uint64_t timeout_ms, struct lmo_err *err)
{
    return fab_check(f, port, source, destination, true, timeout_ms, err);
}

static int fab_assign(struct lmo_fabric *f, const struct lmo_port *port, const char *host, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = fabric_world(f);
    int r = 0;
    if (fake_enter(w, FAKE_ASSIGN, &r, err)) {
        return r;
    }
    fake_lock(w);
    struct fake_guest *g = fake_guest_of_port(w, port->id);
    if (g) {
        LMO_COPY(g->single, host);
    }
    fake_unlock(w);
    return fake_leave(w, FAKE_ASSIGN, 0, err);
}

static int fab_observe(struct lmo_fabric *f, const struct lmo_port *port, char *ret_text, size_t size,
                       uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    (void)err;
    struct fake_world *w = fabric_world(f);
    fake_lock(w);
    const struct fake_guest *g = fake_guest_of_port(w, port->id);
    snprintf(ret_text, size, "%s single=%s dual=%d", port->id, g ? g->single : "", g && g->dual);
    fake_unlock(w);
    return 0;
}

static const struct lmo_fabric_ops fab_ops = {
    .name = "fake",
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

struct fake_network {
    struct lmo_network base;
    struct fake_world *world;
};

static struct fake_world *network_world(struct lmo_network *n)
{
    return ((struct fake_network *)n)->world;
}

static void net_close(struct lmo_network *n)
{
    free(n);
}

static int net_await_installed(struct lmo_network *n, const struct lmo_port *port, uint64_t timeout_ms,
                               struct lmo_err *err)
{
    (void)port;
    (void)timeout_ms;
    int r = 0;
    return fake_enter(network_world(n), FAKE_AWAIT_INSTALLED, &r, err)
               ? r
               : fake_leave(network_world(n), FAKE_AWAIT_INSTALLED, 0, err);
}

static int net_activate(struct lmo_network *n, const struct lmo_port *port, struct lmo_err *err)
{
    struct fake_world *w = network_world(n);
    int r = 0;
    if (fake_enter(w, FAKE_ACTIVATE, &r, err)) {
        return r;
    }
    fake_lock(w);
    struct fake_guest *g = fake_guest_of_port(w, port->id);
    if (g) {
        g->destination_open = true;
    }
    fake_unlock(w);
    return fake_leave(w, FAKE_ACTIVATE, 0, err);
}

static int net_activated(struct lmo_network *n, const struct lmo_port *port, bool *ret_open, uint64_t timeout_ms,
                         struct lmo_err *err)
{
    (void)timeout_ms;
    (void)err;
    struct fake_world *w = network_world(n);
    fake_lock(w);
    const struct fake_guest *g = fake_guest_of_port(w, port->id);
    *ret_open = g && g->destination_open;
    fake_unlock(w);
    return 0;
}

static void net_release(struct lmo_network *n, const struct lmo_port *port)
{
    (void)port;
    int r = 0;
    (void)fake_enter(network_world(n), FAKE_RELEASE, &r, NULL);
}

static const struct lmo_network_ops net_ops = {
    .name = "fake",
    .close = net_close,
    .await_installed = net_await_installed,
    .activate = net_activate,
    .activated = net_activated,
    .release = net_release,
};


struct lmo_fabric *fake_fabric_new(struct fake_world *w)
{
    struct fake_fabric *f = calloc(1, sizeof *f);
    lmo_assert(f);
    *f = (struct fake_fabric){.base.ops = &fab_ops, .world = w};
    return &f->base;
}

struct lmo_network *fake_network_new(struct fake_world *w)
{
    struct fake_network *n = calloc(1, sizeof *n);
    lmo_assert(n);
    *n = (struct fake_network){.base.ops = &net_ops, .world = w};
    return &n->base;
}
