/* cli_fake.h - a coordinator whose answers the test writes down beforehand, and a CLI whose output it can read. */
#ifndef LMO_TESTS_CLI_FAKE_H
#define LMO_TESTS_CLI_FAKE_H

#include "cli/cli.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

struct fake_answer {
    const char *expect; /* "GET /v1/hosts": method and path, exactly or up to a "*"; NULL ends the script */
    int rc;             /* 0, or how the request fails on the way */
    unsigned status;
    const char *body;
};

struct fake {
    const struct fake_answer *script; /* borrowed */
    unsigned asked;
    char key[8][64]; /* Idempotency-Key of each request; "" none */
    char body[8][512], path[8][256];
    uint64_t timeout_ms[8];
};

struct run {
    struct fake fake;
    struct lmo_cli cli;
    int rc;
    char line[512];  /* what the parsed arguments point into */
    char *out, *err; /* owned */
};

static inline const char *fake_no_env(const char *name)
{
    (void)name;
    return NULL;
}

static inline int fake_request(void *arg, const struct lmo_cli_call *call, struct lmo_cli_reply *ret_reply,
                               struct lmo_err *err)
{
    struct fake *f = arg;
    ck_assert_uint_lt(f->asked, 8);
    const struct fake_answer *a = &f->script[f->asked];
    char line[512];
    snprintf(line, sizeof line, "%s %s", call->method, call->path);
    ck_assert_msg(a->expect != NULL, "unexpected %s", line);
    size_t len = strlen(a->expect);
    if (a->expect[len - 1] == '*')
        ck_assert_msg(strncmp(line, a->expect, len - 1) == 0, "%s", line);
    else
        ck_assert_str_eq(line, a->expect);
    snprintf(f->path[f->asked], sizeof f->path[0], "%s", call->path);
    snprintf(f->key[f->asked], sizeof f->key[0], "%s", call->idempotency_key ? call->idempotency_key : "");
    snprintf(f->body[f->asked], sizeof f->body[0], "%s", call->body ? call->body : "");
    f->timeout_ms[f->asked++] = call->timeout_ms;
    if (a->rc < 0)
        return lmo_fail(err, a->rc, "as the test wants");
    if (call->on_data && a->status == 200) { /* in two pieces, as streams come */
        size_t half = strlen(a->body) / 2;
        bool ended = call->on_data(call->data_arg, a->body, half) || call->on_data(call->data_arg, a->body + half, strlen(a->body) - half);
        *ret_reply = (struct lmo_cli_reply){.status = 200, .body = strdup("")};
        return ended ? lmo_fail(err, LMO_E_CANCELLED, "the reader wants no more") : 0;
    }
    *ret_reply = (struct lmo_cli_reply){.status = a->status, .body = strdup(a->body), .body_len = strlen(a->body)};
    return 0;
}

/* Runs `line` (split at blanks) against the script, which must be used up exactly. Release with run_done. */
static inline void run_line(struct run *r, const struct fake_answer *script, const char *line)
{
    char *argv[32], *rest = r->line;
    int argc = 0;
    snprintf(r->line, sizeof r->line, "lmo %s", line);
    for (char *word; argc < 31 && (word = strsep(&rest, " "));)
        argv[argc++] = word;
    argv[argc] = NULL;
    size_t out_len = 0, err_len = 0;
    bool tty = r->cli.err_style.tty;
    uint64_t patience_ms = r->cli.patience_ms ? r->cli.patience_ms : 60000;
    r->fake = (struct fake){.script = script};
    r->cli = (struct lmo_cli){.out = open_memstream(&r->out, &out_len),
                              .err = open_memstream(&r->err, &err_len),
                              .env = fake_no_env,
                              .request = fake_request,
                              .request_arg = &r->fake,
                              .err_style = {.tty = tty},
                              .retry_pause_ms = 1,
                              .patience_ms = patience_ms};
    r->rc = lmo_cli_run(&r->cli, argc, argv);
    fclose(r->cli.out);
    fclose(r->cli.err);
    ck_assert(r->out && r->err);
    if (script)
        ck_assert_msg(script[r->fake.asked].expect == NULL, "not asked: %s", script[r->fake.asked].expect);
}

static inline void run_done(struct run *r)
{
    free(r->out);
    free(r->err);
    *r = (struct run){0};
}

/* Not inlined: gcc folds strstr(x, "") into x, and then warns that x could be printed although it is NULL. */
__attribute__((noinline)) static bool contains(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* The whole of it, for a line that needs no look inside. */
static inline void expect_exit(const struct fake_answer *script, const char *line, int rc, const char *in_out,
                               const char *in_err)
{
    struct run r = {0};
    run_line(&r, script, line);
    ck_assert_msg(r.rc == rc, "%s: exit %d, not %d: %s%s", line, r.rc, rc, r.out, r.err);
    ck_assert_msg(contains(r.out, in_out), "%s: stdout: %s", line, r.out);
    ck_assert_msg(contains(r.err, in_err), "%s: stderr: %s", line, r.err);
    run_done(&r);
}

#endif
