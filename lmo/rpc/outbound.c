/* outbound.c - see outbound.h. Two clients: one for URLs that users gave us, which looks at every address before it connects,
 * and one for those of our own configuration. Neither shows a certificate of ours, and neither follows redirects. */
#include "rpc/outbound.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "http/address.h"
#include "http/client.h"

#include <stdlib.h>

#define CONNECTIONS_PER_HOST 8
#define REQUESTS_MAX         2048
#define ANSWER_MAX           16384

struct outbound {
    struct lmo_outbound base; /* first */
    struct lmo_outbound_config config;
    struct lmo_http_client *users, *ours;
};

struct call {
    lmo_outbound_done_fn *done;
    void *arg;
};

static struct outbound *of(struct lmo_outbound *o)
{
    return (struct outbound *)(void *)o;
}

static bool may_connect(void *arg, const struct sockaddr *address)
{
    const struct outbound *o = arg;
    return o->config.allow_private || lmo_address_is_public(address);
}

static void answered(void *arg, const struct lmo_http_response *r)
{
    struct call c = *(struct call *)arg;
    free(arg);
    bool long_answer = r->result == LMO_E_TOO_LARGE; /* it has answered; with what is not known */
    c.done(c.arg, long_answer ? LMO_E_TOO_LARGE : r->result, r->status, r->body,
           r->result < 0 && r->err ? r->err->text : "");
}

static int post(struct lmo_outbound *base, const struct lmo_outbound_request *r, lmo_outbound_done_fn *done, void *arg,
                uint64_t *ret_handle, struct lmo_err *err)
{
    struct outbound *o = of(base);
    struct call *c = malloc(sizeof *c);
    if (!c) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a call");
    }
    *c = (struct call){done, arg};
    const struct lmo_http_request_spec spec = {.method = "POST",
                                               .url = r->url,
                                               .headers = r->headers,
                                               .body = r->body,
                                               .body_len = r->len,
                                               .timeout_ms = r->timeout_ms,
                                               .response_max = ANSWER_MAX,
                                               .owned_arg = true};
    int rc = r->ours ? 0 : lmo_url_check(r->url, o->config.allow_http, o->config.allow_private, err);
    if (rc == 0) {
        rc = lmo_http_request_async(r->ours ? o->ours : o->users, &spec, answered, c, ret_handle, err);
    }
    if (rc < 0) {
        free(c);
    } else if (r->ours) {
        *ret_handle |= UINT64_C(1) << 63; /* whose it is; generations stay below that */
    }
    return rc;
}

static void cancel(struct lmo_outbound *base, uint64_t *handle)
{
    struct outbound *o = of(base);
    uint64_t ours = UINT64_C(1) << 63, inner = *handle & ~ours;
    lmo_http_cancel(*handle & ours ? o->ours : o->users, &inner);
    *handle = 0;
}

static int check(const struct lmo_outbound *base, const char *url, struct lmo_err *err)
{
    const struct outbound *o = (const struct outbound *)(const void *)base;
    return lmo_url_check(url, o->config.allow_http, o->config.allow_private, err);
}

static const struct lmo_outbound_ops ops = {.post = post, .cancel = cancel, .check = check};

int lmo_outbound_open(struct lmo_loop *loop, const struct lmo_outbound_config *config, struct lmo_outbound **ret,
                      struct lmo_err *err)
{
    struct outbound *o = calloc(1, sizeof *o);
    if (!o) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for calls to others");
    }
    o->base.ops = &ops;
    o->config = *config;
    struct lmo_http_client_config users = {.outside = true,
                                           .plain = config->allow_http,
                                           .may_connect = may_connect,
                                           .may_connect_arg = o,
                                           .connections_per_host = CONNECTIONS_PER_HOST,
                                           .requests_max = REQUESTS_MAX,
                                           .connect_timeout_ms = 10000};
    struct lmo_http_client_config ours = {
        .outside = true, .plain = true, .connections_per_host = 2, .requests_max = 16, .connect_timeout_ms = 10000};
    LMO_COPY(users.tls.ca, config->ca);
    LMO_COPY(ours.tls.ca, config->otlp_ca);
    int r = lmo_http_client_new(loop, &users, &o->users, err);
    r = r < 0 ? r : lmo_http_client_new(loop, &ours, &o->ours, err);
    if (r < 0) {
        (void)lmo_outbound_close(&o->base);
        return lmo_err_prefix(err, "calls to others");
    }
    *ret = &o->base;
    return 0;
}

struct lmo_outbound *lmo_outbound_close(struct lmo_outbound *base)
{
    if (base) {
        struct outbound *o = of(base);
        lmo_http_client_free(o->users);
        lmo_http_client_free(o->ours);
        free(o);
    }
    return NULL;
}

int lmo_outbound_reload(struct lmo_outbound *base, struct lmo_err *err)
{
    int r = lmo_http_client_reload(of(base)->users, err);
    return r < 0 ? r : lmo_http_client_reload(of(base)->ours, err);
}
