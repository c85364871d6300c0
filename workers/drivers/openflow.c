/* openflow.c - a kept connection to a bridge's OpenFlow management socket; see openflow.h. */
#include "workers/drivers/openflow.h"

#include "base/assert.h"
#include "base/log.h"
#include "workers/drivers/openflow_wire.h"
#include "workers/drivers/ovsdb_link.h"

#include <string.h>

/* A request somebody waits for; lives on the waiter's stack while it is in the list. */
struct of_call {
    uint32_t xid;
    bool done;
    struct lmo_err err;
    /* For a multipart request: one of the two, called for every entry of the reply. */
    void (*each)(void *arg, const struct lmo_openflow_flow *flow);
    void (*each_port)(void *arg, const struct lmo_openflow_port *port);
    void *arg;
    struct of_call *next;
};

/* A subscription to changes of flows. */
struct of_watch {
    uint32_t id; /* 0: free */
    uint8_t table_id;
    uint32_t in_port;
};

struct lmo_openflow {
    struct lmo_ovsdb_link link; /* its lock guards everything here */
    struct lmo_buf in;
    bool ready;
    bool unfit; /* the switch does not speak our version */
    uint32_t next_xid;
    uint64_t changes;
    struct of_call *calls;
    struct of_watch watches[LMO_OPENFLOW_WATCHES_MAX];
};

/* Locked. Gives every message of `bytes` an xid of its own; *ret_xid (may be NULL): the last one's. */
static int post(struct lmo_openflow *of, struct lmo_buf *bytes, uint32_t *ret_xid, struct lmo_err *err)
{
    uint32_t xid = 0;
    for (size_t at = 0; at < bytes->len;) {
        xid = ++of->next_xid ? of->next_xid : ++of->next_xid; /* 0 marks what the switch sends by itself */
        at += of_stamp((uint8_t *)bytes->data + at, xid);
    }
    int r = lmo_ovsdb_link_send(&of->link, bytes->data, bytes->len, err);
    if (r == 0 && ret_xid)
        *ret_xid = xid;
    return r;
}

static struct of_call *find_call(struct lmo_openflow *of, uint32_t xid)
{
    struct of_call *c = of->calls;
    while (c && (c->xid != xid || c->done))
        c = c->next;
    return c;
}

static void on_error(struct lmo_openflow *of, const struct of_message *m)
{
    uint16_t type = 0, code = 0;
    (void)of_error(m, &type, &code);
    struct of_call *c = find_call(of, m->xid);
    if (c) {
        (void)lmo_fail(&c->err, LMO_E_REFUSED, "%s: the switch refused (error type %u, code %u)", of->link.name,
                       (unsigned)type, (unsigned)code);
        c->done = true;
        return;
    }
    lmo_log(LMO_LOG_WARN, "openflow error", "bridge=%s type=%u code=%u xid=%u", of->link.name, (unsigned)type,
            (unsigned)code, (unsigned)m->xid);
}

static int on_multipart(struct lmo_openflow *of, const struct of_message *m)
{
    uint16_t type;
    bool more;
    if (!of_multipart_head(m, &type, &more))
        return LMO_E_INVALID;
    if (type == OF_MP_FLOW_MONITOR) {
        of->changes++;
        return 0;
    }
    struct of_call *c = find_call(of, m->xid);
    if (!c || !(type == OF_MP_FLOW ? !!c->each : type == OF_MP_PORT_DESC && c->each_port))
        return 0;
    c->done = !more;
    return type == OF_MP_FLOW ? of_each_flow(m, c->each, c->arg) : of_each_port(m, c->each_port, c->arg);
}

static int reply_echo(struct lmo_openflow *of, const struct of_message *m)
{
    LMO_AUTO_BUF struct lmo_buf out = LMO_BUF_INIT(OF_MESSAGE_MAX);
    int r = of_put_simple(&out, OF_ECHO_REPLY, m->body, m->len);
    if (r < 0)
        return r;
    (void)of_stamp((uint8_t *)out.data, m->xid);
    return lmo_ovsdb_link_send(&of->link, out.data, out.len, NULL);
}

/* Locked. */
static int subscribe(struct lmo_openflow *of, const struct of_watch *w, struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf request = LMO_BUF_INIT(OF_BURST_MAX);
    int r = of_put_monitor(&request, w->id, w->table_id, w->in_port);
    return r < 0 ? lmo_fail(err, r, "%s: out of memory", of->link.name) : post(of, &request, NULL, err);
}

static int on_hello(struct lmo_openflow *of, const struct of_message *m)
{
    if (of->ready)
        return 0;
    if (!of_hello_allows(m)) {
        of->unfit = true;
        lmo_log(LMO_LOG_ERROR, "openflow version missing", "bridge=%s needed=1.4 offered=%u", of->link.name,
                (unsigned)m->version);
        return 0;
    }
    of->ready = true;
    of->link.useful = true;
    int r = 0;
    for (size_t i = 0; r == 0 && i < LMO_OPENFLOW_WATCHES_MAX; i++) {
        if (of->watches[i].id)
            r = subscribe(of, &of->watches[i], NULL);
    }
    return r;
}

static int on_message(struct lmo_openflow *of, const struct of_message *m)
{
    struct of_call *c;
    switch (m->type) {
    case OF_HELLO: return on_hello(of, m);
    case OF_ERROR: on_error(of, m); return 0;
    case OF_ECHO_REQUEST: return reply_echo(of, m);
    case OF_MULTIPART_REPLY: return on_multipart(of, m);
    case OF_BARRIER_REPLY:
        c = find_call(of, m->xid);
        if (c)
            c->done = true;
        return 0;
    default: return 0; /* packet-ins, port status: not for us */
    }
}

static int received(void *arg, const uint8_t *bytes, size_t n, struct lmo_err *err)
{
    struct lmo_openflow *of = arg;
    struct of_message m;
    size_t used, at = 0;
    int r = lmo_buf_append(&of->in, bytes, n);
    if (r < 0)
        return lmo_fail(err, r, "message too long");
    while ((r = of_parse((const uint8_t *)of->in.data + at, of->in.len - at, &m, &used)) > 0) {
        r = on_message(of, &m);
        if (r < 0)
            break;
        at += used;
    }
    memmove(of->in.data, of->in.data + at, of->in.len - at);
    of->in.len -= at;
    return r < 0 ? lmo_fail(err, r, "message not understood (%s)", lmo_err_name(r)) : 0;
}

static int connected(void *arg, struct lmo_err *err)
{
    struct lmo_openflow *of = arg;
    LMO_AUTO_BUF struct lmo_buf out = LMO_BUF_INIT(OF_BURST_MAX);
    lmo_buf_reset(&of->in);
    of->unfit = false;
    int r = of_put_hello(&out);
    return r < 0 ? lmo_fail(err, r, "out of memory") : post(of, &out, NULL, err);
}

static int probe(void *arg, struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf out = LMO_BUF_INIT(OF_BURST_MAX);
    int r = of_put_simple(&out, OF_ECHO_REQUEST, NULL, 0);
    return r < 0 ? lmo_fail(err, r, "out of memory") : post(arg, &out, NULL, err);
}

static void lost(void *arg)
{
    struct lmo_openflow *of = arg;
    of->ready = false;
    of->changes++;
    for (struct of_call *c = of->calls; c; c = c->next) {
        if (!c->done)
            (void)lmo_fail(&c->err, LMO_E_UNAVAILABLE, "%s: connection lost", of->link.name);
        c->done = true;
    }
}

static const struct lmo_ovsdb_link_user link_user = {.connected = connected,
                                                     .received = received,
                                                     .probe = probe,
                                                     .lost = lost};

int lmo_openflow_open(const char *bridge, const char *remote, struct lmo_openflow **ret, struct lmo_err *err)
{
    struct lmo_openflow *of = calloc(1, sizeof *of);
    if (!of)
        return lmo_fail(err, LMO_E_NO_MEMORY, "openflow: out of memory");
    /* Room for one whole message and what one read brings behind it. */
    of->in = LMO_BUF_INIT((size_t)2 * (OF_MESSAGE_MAX + 1));
    int r = lmo_ovsdb_link_start(&of->link, bridge, remote, 0, &link_user, of, err);
    if (r < 0) {
        free(of);
        return r;
    }
    *ret = of;
    return 0;
}

void lmo_openflow_close(struct lmo_openflow *of)
{
    if (!of)
        return;
    lmo_assert(!of->calls);
    lmo_ovsdb_link_stop(&of->link);
    lmo_buf_done(&of->in);
    free(of);
}

/* Locked. */
static int await_ready(struct lmo_openflow *of, uint64_t deadline_ns, struct lmo_err *err)
{
    while (!of->ready) {
        if (of->unfit)
            return lmo_fail(err, LMO_E_UNSUPPORTED, "%s: the bridge does not speak OpenFlow 1.4 (see its protocols)",
                            of->link.name);
        if (!lmo_ovsdb_link_wait(&of->link, deadline_ns))
            return lmo_fail(err, LMO_E_UNAVAILABLE, "%s: not connected: %s", of->link.name, of->link.problem.text);
    }
    return 0;
}

int lmo_openflow_await_ready(struct lmo_openflow *of, uint64_t deadline_ns, struct lmo_err *err)
{
    pthread_mutex_lock(&of->link.lock);
    int r = await_ready(of, deadline_ns, err);
    pthread_mutex_unlock(&of->link.lock);
    return r;
}

/* Sends one request and waits until its reply is complete. */
static int call(struct lmo_openflow *of, struct lmo_buf *request, struct of_call *c, uint64_t deadline_ns,
                struct lmo_err *err)
{
    pthread_mutex_lock(&of->link.lock);
    int r = await_ready(of, deadline_ns, err);
    if (r == 0)
        r = post(of, request, &c->xid, err);
    if (r == 0) {
        c->next = of->calls;
        of->calls = c;
        while (!c->done && lmo_ovsdb_link_wait(&of->link, deadline_ns))
            continue;
        struct of_call **at = &of->calls;
        while (*at != c)
            at = &(*at)->next;
        *at = c->next;
        if (!c->done)
            r = lmo_fail(err, LMO_E_TIMEOUT, "%s: no reply in time", of->link.name);
        else if (c->err.code < 0)
            r = lmo_fail(err, c->err.code, "%s", c->err.text);
    }
    pthread_mutex_unlock(&of->link.lock);
    return r;
}

int lmo_openflow_flows(struct lmo_openflow *of, const struct lmo_openflow_query *query,
                       void (*each)(void *arg, const struct lmo_openflow_flow *flow), void *arg, uint64_t deadline_ns,
                       struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf request = LMO_BUF_INIT(OF_BURST_MAX);
    int r = of_put_flow_request(&request, query);
    if (r < 0)
        return lmo_fail(err, r, "%s: out of memory", of->link.name);
    struct of_call c = {.each = each, .arg = arg};
    return call(of, &request, &c, deadline_ns, err);
}

struct port_search {
    struct lmo_openflow_port port;
    bool found;
};

static void match_port(void *arg, const struct lmo_openflow_port *port)
{
    struct port_search *s = arg;
    if (port->number == s->port.number) {
        s->port = *port;
        s->found = true;
    }
}

int lmo_openflow_find_port(struct lmo_openflow *of, uint32_t number, uint64_t deadline_ns,
                           struct lmo_openflow_port *ret, struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf request = LMO_BUF_INIT(OF_BURST_MAX);
    struct port_search s = {.port.number = number};
    struct of_call c = {.each_port = match_port, .arg = &s};
    int r = of_put_port_request(&request);
    if (r < 0)
        return lmo_fail(err, r, "%s: out of memory", of->link.name);
    r = call(of, &request, &c, deadline_ns, err);
    if (r < 0)
        return r;
    if (!s.found)
        return lmo_fail(err, LMO_E_NOT_FOUND, "%s: no port has number %u", of->link.name, (unsigned)number);
    *ret = s.port;
    return 0;
}

int lmo_openflow_barrier(struct lmo_openflow *of, uint64_t deadline_ns, struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf request = LMO_BUF_INIT(OF_BURST_MAX);
    int r = of_put_simple(&request, OF_BARRIER_REQUEST, NULL, 0);
    if (r < 0)
        return lmo_fail(err, r, "%s: out of memory", of->link.name);
    struct of_call c = {0};
    return call(of, &request, &c, deadline_ns, err);
}

/* Hands over a buffer that may be stamped, without waiting. */
static int hand_over(struct lmo_openflow *of, struct lmo_buf *bytes, struct lmo_err *err)
{
    pthread_mutex_lock(&of->link.lock);
    int r = of->ready ? post(of, bytes, NULL, err)
                      : lmo_fail(err, LMO_E_UNAVAILABLE, "%s: not connected: %s", of->link.name, of->link.problem.text);
    pthread_mutex_unlock(&of->link.lock);
    return r;
}

/* Locked. */
static struct of_watch *find_watch(struct lmo_openflow *of, uint32_t id)
{
    for (size_t i = 0; i < LMO_OPENFLOW_WATCHES_MAX; i++) {
        if (of->watches[i].id == id)
            return &of->watches[i];
    }
    return NULL;
}

int lmo_openflow_watch(struct lmo_openflow *of, uint32_t id, uint8_t table_id, uint32_t in_port, struct lmo_err *err)
{
    lmo_assert(id != 0);
    int r = 0;
    pthread_mutex_lock(&of->link.lock);
    struct of_watch *w = find_watch(of, 0);
    if (!w) {
        r = lmo_fail(err, LMO_E_LIMIT, "%s: %d subscriptions already", of->link.name, LMO_OPENFLOW_WATCHES_MAX);
    } else {
        *w = (struct of_watch){.id = id, .table_id = table_id, .in_port = in_port};
        r = of->ready ? subscribe(of, w, err) : 0; /* otherwise with the next connection */
    }
    if (r < 0 && w)
        *w = (struct of_watch){0};
    pthread_mutex_unlock(&of->link.lock);
    return r;
}

void lmo_openflow_unwatch(struct lmo_openflow *of, uint32_t id)
{
    LMO_AUTO_BUF struct lmo_buf request = LMO_BUF_INIT(OF_BURST_MAX);
    pthread_mutex_lock(&of->link.lock);
    struct of_watch *w = id ? find_watch(of, id) : NULL;
    if (w) {
        *w = (struct of_watch){0};
        /* When it cannot be sent, the connection is gone and the subscription with it. */
        if (of->ready && of_put_monitor_cancel(&request, id) == 0 && post(of, &request, NULL, NULL) < 0)
            of->changes++;
    }
    pthread_mutex_unlock(&of->link.lock);
}

uint64_t lmo_openflow_changes(struct lmo_openflow *of)
{
    pthread_mutex_lock(&of->link.lock);
    uint64_t n = of->changes;
    pthread_mutex_unlock(&of->link.lock);
    return n;
}

int lmo_openflow_await_change(struct lmo_openflow *of, uint64_t seen, uint64_t deadline_ns, struct lmo_err *err)
{
    int r = 0;
    pthread_mutex_lock(&of->link.lock);
    while (r == 0 && of->changes == seen) {
        if (!lmo_ovsdb_link_wait(&of->link, deadline_ns))
            r = lmo_fail(err, LMO_E_TIMEOUT, "%s: no change of the flows in time", of->link.name);
    }
    pthread_mutex_unlock(&of->link.lock);
    return r;
}

int lmo_openflow_send(struct lmo_openflow *of, const struct lmo_buf *burst, struct lmo_err *err)
{
    /* The caller's burst may be used again, by another thread too: the xids go into a copy. */
    LMO_AUTO_BUF struct lmo_buf copy = LMO_BUF_INIT(OF_BURST_MAX);
    if (lmo_buf_append(&copy, burst->data, burst->len) < 0)
        return lmo_fail(err, LMO_E_NO_MEMORY, "%s: out of memory", of->link.name);
    return hand_over(of, &copy, err);
}
