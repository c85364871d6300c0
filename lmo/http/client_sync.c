/* client_sync.c - one request to its end on a loop that nobody runs; for the command line. */
#include "http/client_internal.h"
#include "base/assert.h"

#include <stdio.h>
#include <string.h>

struct waiting {
    struct lmo_loop *loop;
    struct lmo_http_answer answer;
    struct lmo_err err;
    int result;
    bool done;
};

static void answered(void *arg, const struct lmo_http_response *response)
{
    struct waiting *w = arg;
    w->result = response->result;
    w->done = true;
    if (response->result < 0) {
        w->err = *response->err;
    } else {
        w->answer.status = response->status;
        w->answer.body = malloc(response->body_len + 1);
        if (w->answer.body) {
            memcpy(w->answer.body, response->body, response->body_len + 1);
            w->answer.body_len = response->body_len;
            snprintf(w->answer.content_type, sizeof w->answer.content_type, "%s", response->content_type);
        } else {
            w->result = lmo_fail(&w->err, LMO_E_NO_MEMORY, "no memory for the answer");
        }
    }
    lmo_loop_stop(w->loop);
}

int lmo_http_request_sync(struct lmo_http_client *client, const struct lmo_http_request_spec *spec,
                          struct lmo_http_answer *ret_answer, struct lmo_err *err)
{
    struct waiting w = {.loop = client->loop};
    uint64_t handle = 0;
    int r = lmo_http_request_async(client, spec, answered, &w, &handle, err);
    if (r < 0)
        return r;
    r = lmo_loop_run(w.loop); /* ends by the request's own deadline at the latest */
    if (!w.done) {
        lmo_http_cancel(client, &handle);
        return lmo_fail(err, r < 0 ? r : LMO_E_CANCELLED, "%s: interrupted", spec->url);
    }
    if (w.result < 0) {
        if (err)
            *err = w.err;
        return w.result;
    }
    *ret_answer = w.answer;
    return 0;
}

void lmo_http_answer_done(struct lmo_http_answer *answer)
{
    free(answer->body);
    *answer = (struct lmo_http_answer){0};
}
