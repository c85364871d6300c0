/* cmd_watch.c - `lmo watch`: a line for each change, until somebody has seen enough.
 *
 * Changes come from the coordinator's events (watch_events.c). Where it has none, or --interval is given, it is asked: one migration is asked for by its version, so its change comes at once; lists, and several migrations, are looked at every
 * --interval. A coordinator that goes away is borne with; what changed meanwhile is told when it is back. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/wait.h"
#include "cli/watch_run.h"

#include <inttypes.h>
#include <string.h>

#define INTERVAL_MS 1000
#define HOLD_MS     25000
#define GRACE_MS    10000

bool watcher_enough(const struct watcher *w)
{
    return (w->most > 0 && w->lines >= w->most) || ferror(w->cli->out);
}

void watcher_tell(struct watcher *w, const struct lmo_change *c)
{
    if (watcher_enough(w))
        return;
    lmo_watch_print(c, w->form, &w->cli->out_style, w->cli->out);
    w->lines++;
}

/* 0 with *ret_answer NULL: not now, try again. Otherwise an exit code. */
static int get(struct watcher *w, const char *path, uint64_t timeout_ms, json_t **ret_answer)
{
    struct lmo_cli_call call = {.method = "GET", .path = path, .timeout_ms = timeout_ms};
    struct lmo_cli_reply reply = {0};
    struct lmo_err err = {0};
    *ret_answer = NULL;
    int rc = lmo_api_request(w->cli, &call, &reply, &err);
    if (!w->first && lmo_wait_comes_back(&reply, rc)) {
        rc = lmo_patience_bear(w->cli, &w->patience, &err, "", WATCHER_LATER);
    } else if (rc < 0) {
        rc = lmo_api_unreached(w->cli, &err);
    } else {
        lmo_patience_answered(w->cli, &w->patience);
        rc = lmo_api_accept(w->cli, &reply, ret_answer);
    }
    free(reply.body);
    return rc;
}

static void gone_host(void *arg, const char *id)
{
    struct lmo_change c = {.at_ms = lmo_realtime_us() / 1000,
                           .object = "host",
                           .id = id,
                           .vm = "",
                           .source = "",
                           .destination = "",
                           .state = "removed",
                           .detail = ""};
    watcher_tell(arg, &c);
}

static int look_at_hosts(struct watcher *w)
{
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = get(w, "/v1/hosts", LMO_API_TIMEOUT_MS, &answer);
    if (rc != 0 || !answer)
        return rc;
    size_t i = 0;
    const json_t *h;
    struct lmo_change c;
    json_array_foreach(json_object_get(answer, "hosts"), i, h)
    {
        if (lmo_watch_host(&w->seen, h, &c))
            watcher_tell(w, &c);
    }
    lmo_watch_sweep(&w->seen, "host", gone_host, w);
    return 0;
}

static int look_at_migrations(struct watcher *w)
{
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = get(w, "/v1/migrations?limit=1000", LMO_API_TIMEOUT_MS, &answer);
    if (rc != 0 || !answer)
        return rc;
    const json_t *list = json_object_get(answer, "migrations");
    struct lmo_change c;
    for (size_t i = json_array_size(list);
         i-- > 0;) { /* newest first, as it comes: told in the order of their beginning */
        if (lmo_watch_migration(&w->seen, json_array_get(list, i), w->first, &c))
            watcher_tell(w, &c);
    }
    lmo_watch_sweep(&w->seen, "migration", NULL,
                    NULL); /* too old for the list: it is not gone, only not told of any more */
    return 0;
}

/* Those that were named; *ret_open: how many have not ended. */
static int look_at_named(struct watcher *w, unsigned *ret_open)
{
    const struct lmo_cli_args *a = &w->cli->args;
    *ret_open = 0;
    for (unsigned i = 0; i < a->count; i++) {
        LMO_AUTO_JSON json_t *answer = NULL;
        char path[LMO_API_PATH_MAX], number[32];
        bool alone = a->count == 1 && w->versions[0] > 0 && !w->streams;
        if (w->versions[i] == UINT64_MAX)
            continue; /* it has ended */
        bool fits = lmo_api_path(path, "/v1/migrations/", a->positional[i], "");
        if (fits && alone) {
            uint64_t left = w->deadline_ns ? lmo_ms_until(w->deadline_ns) : HOLD_MS;
            snprintf(number, sizeof number, "%" PRIu64, w->versions[0]);
            fits = lmo_api_query(path, "wait_version", number);
            snprintf(number, sizeof number, "%" PRIu64, left < HOLD_MS ? left : HOLD_MS);
            fits = fits && lmo_api_query(path, "wait_ms", number);
        }
        int rc = get(w, path, alone ? HOLD_MS + GRACE_MS : LMO_API_TIMEOUT_MS, &answer);
        (*ret_open)++;
        if (rc != 0)
            return rc;
        if (!answer)
            continue;
        struct lmo_change c;
        if (lmo_watch_migration(&w->seen, answer, false, &c))
            watcher_tell(w, &c);
        w->versions[i] = lmo_api_u64(answer, "version");
        if (lmo_wait_outcome(answer) >= 0) {
            w->versions[i] = UINT64_MAX;
            (*ret_open)--;
        }
    }
    return 0;
}

int watcher_look(struct watcher *w, unsigned *ret_open)
{
    *ret_open = 1;
    return w->named ? look_at_named(w, ret_open) : w->hosts ? look_at_hosts(w) : look_at_migrations(w);
}

static int poll_changes(struct watcher *w)
{
    const struct lmo_cli_args *a = &w->cli->args;
    uint64_t interval = LMO_GIVEN(a, INTERVAL) ? a->number[LMO_OPT_INTERVAL] : INTERVAL_MS;
    for (;; w->first = false) {
        unsigned open = 1;
        uint64_t began = lmo_now_ns(), before = w->versions[0];
        int rc = watcher_look(w, &open);
        if (rc != 0 || open == 0 || watcher_enough(w))
            return rc;
        if (w->deadline_ns && lmo_ms_until(w->deadline_ns) == 0)
            return LMO_EXIT_WAIT_OVER;
        uint64_t pause = lmo_ms_until(began + interval * LMO_NS_PER_MS);
        uint64_t left = w->deadline_ns ? lmo_ms_until(w->deadline_ns) : pause;
        if (w->named && a->count == 1 && w->versions[0] != before)
            pause = 0; /* the coordinator holds the next request until there is something new */
        lmo_wait_pause(pause < left ? pause : left);
    }
}

int lmo_cmd_watch(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    const char *what = a->count > 0 ? a->positional[0] : "migrations";
    bool hosts = strcmp(what, "hosts") == 0, migrations = strcmp(what, "migrations") == 0;
    struct watcher w = {.cli = cli, .most = a->number[LMO_OPT_TIMES], .first = true};
    for (unsigned i = 0; i < a->count; i++) {
        if (lmo_ulid_valid(a->positional[i]) || (i == 0 && a->count == 1 && (hosts || migrations)))
            continue;
        lmo_cli_message(cli, "watch: \"%.60s\" is neither migrations, hosts nor a migration's id", a->positional[i]);
        return LMO_EXIT_USAGE;
    }
    if (LMO_GIVEN(a, TIMEOUT))
        w.deadline_ns = lmo_now_ns() + a->number[LMO_OPT_TIMEOUT] * LMO_NS_PER_MS;
    w.form = LMO_GIVEN(a, JSON) ? LMO_WATCH_JSON : LMO_GIVEN(a, PLAIN) ? LMO_WATCH_PLAIN : LMO_WATCH_TEXT;
    lmo_watch_heading(w.form, cli->out);
    w.hosts = hosts;
    w.named = !hosts && !migrations;
    int rc = 0;
    if (LMO_GIVEN(a, INTERVAL) || !watcher_stream(&w, &rc)) /* who says how often wants to be told so often */
        rc = poll_changes(&w);
    lmo_watch_release(&w.seen);
    return rc;
}
