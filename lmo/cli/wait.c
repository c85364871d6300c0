/* wait.c - see wait.h. */
#include "cli/wait.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "cli/api.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#define HOLD_MS         25000 /* how long the coordinator may hold one request */
#define ANSWER_GRACE_MS 10000 /* on top of it */
#define LOOK_MS         1000  /* between looks at what has no versions */

/* ------------------------------------------------------------------ interruption */

/* The handler may only write and leave, so the text is made beforehand. */
static char interrupted_text[512];

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    ssize_t n = write(STDERR_FILENO, interrupted_text, strlen(interrupted_text));
    _exit(n < 0 ? LMO_EXIT_FAILED : LMO_EXIT_INTERRUPTED);
}

static void catch_interrupt(const struct lmo_wait *w, struct sigaction *ret_old)
{
    snprintf(interrupted_text, sizeof interrupted_text,
             "%slmo: no longer waiting%s%s. %s.\n", w->cli->err_style.tty ? "\n" : "", *w->spec->goes_on ? "; " : "",
             w->spec->goes_on, w->later);
    struct sigaction sa = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &sa, ret_old);
}

void lmo_wait_end_line(struct lmo_wait *w)
{
    if (w->live_phase[0])
        fputc('\n', w->cli->err);
    w->live_phase[0] = '\0';
}

/* ------------------------------------------------------------------ asking */

void lmo_wait_pause(uint64_t ms)
{
    poll(NULL, 0, (int)ms);
}

bool lmo_wait_comes_back(const struct lmo_cli_reply *reply, int rc)
{
    if (rc < 0)
        return rc == LMO_E_UNAVAILABLE || rc == LMO_E_TIMEOUT || rc == LMO_E_UNKNOWN;
    return reply->status == 429 || reply->status == 502 || reply->status == 503 || reply->status == 504;
}

int lmo_patience_bear(struct lmo_cli *cli, struct lmo_patience *p, const struct lmo_err *err, const char *goes_on,
                      const char *later)
{
    uint64_t now = lmo_now_ns();
    if (!p->lost) {
        lmo_cli_message(cli, "the coordinator does not answer (%s); %s%strying again", err->text[0] ? err->text : "busy", goes_on,
                        *goes_on ? ", " : "");
        *p = (struct lmo_patience){.lost = true, .since_ns = now};
    }
    uint64_t patience_ms = cli->patience_ms ? cli->patience_ms : LMO_WAIT_PATIENCE_MS;
    if (now - p->since_ns >= patience_ms * LMO_NS_PER_MS) {
        lmo_cli_message(cli, "no answer for %" PRIu64 " s. Later: %s", patience_ms / 1000, later);
        return LMO_EXIT_UNREACHABLE;
    }
    lmo_wait_pause(cli->retry_pause_ms ? cli->retry_pause_ms : LMO_WAIT_RETRY_MS);
    return 0;
}

void lmo_patience_answered(struct lmo_cli *cli, struct lmo_patience *p)
{
    if (p->lost)
        lmo_cli_message(cli, "the coordinator answers again");
    p->lost = false;
}

static uint64_t hold_ms(const struct lmo_wait *w)
{
    uint64_t left = w->deadline_ns ? lmo_ms_until(w->deadline_ns) : HOLD_MS;
    return left < HOLD_MS ? left : HOLD_MS;
}

/* "/v1/migrations/ID", and once there is a record that has versions, "?wait_version=N&wait_ms=M". */
static bool ask_path(const struct lmo_wait *w, const json_t *record, uint64_t hold, char path[LMO_API_PATH_MAX])
{
    char version[32], wait[32];
    if (!lmo_api_path(path, w->spec->collection, w->id, ""))
        return false;
    if (!record || !w->spec->versioned)
        return true;
    snprintf(version, sizeof version, "%" PRIu64, lmo_api_u64(record, "version"));
    snprintf(wait, sizeof wait, "%" PRIu64, hold);
    return lmo_api_query(path, "wait_version", version) && lmo_api_query(path, "wait_ms", wait);
}

/* Puts what the coordinator answered into *record, if it is a record. 0 or an exit code. */
static int take_answer(struct lmo_wait *w, const struct lmo_cli_reply *reply, json_t **record)
{
    lmo_patience_answered(w->cli, &w->patience);
    if (reply->status == 304)
        return 0; /* nothing newer */
    json_t *json = NULL;
    int rc = lmo_api_accept(w->cli, reply, &json);
    if (rc != 0)
        return rc;
    if (!json_object_get(json, w->spec->member)) {
        json_decref(json);
        lmo_cli_message(w->cli, "the answer is not a %s's record: is --url the coordinator's?", w->spec->noun);
        return LMO_EXIT_PROTOCOL;
    }
    json_decref(*record);
    *record = json;
    return 0;
}

/* Replaces *record when there is a newer one. 0 or an exit code. */
static int ask(struct lmo_wait *w, json_t **record)
{
    char path[LMO_API_PATH_MAX];
    uint64_t hold = hold_ms(w), version = lmo_api_u64(*record, "version"), began_ns = lmo_now_ns();
    bool known = *record != NULL;
    if (!ask_path(w, *record, hold, path)) {
        lmo_cli_message(w->cli, "\"%.60s\" cannot be the name of a %s", w->id, w->spec->noun);
        return LMO_EXIT_USAGE;
    }
    if (known && !w->spec->versioned)
        lmo_wait_pause(w->cli->retry_pause_ms ? w->cli->retry_pause_ms : hold < LOOK_MS ? hold : LOOK_MS);
    struct lmo_cli_call call = {.method = "GET", .path = path, .timeout_ms = hold + ANSWER_GRACE_MS};
    struct lmo_cli_reply reply = {0};
    struct lmo_err err = {0};
    int rc = lmo_api_request(w->cli, &call, &reply, &err);
    /* A migration never seen may not exist: that is a plain failure, reported as any other. */
    if (known && lmo_wait_comes_back(&reply, rc)) {
        lmo_wait_end_line(w);
        rc = lmo_patience_bear(w->cli, &w->patience, &err, w->spec->goes_on, w->later);
    } else if (rc < 0)
        rc = lmo_api_unreached(w->cli, &err);
    else {
        rc = take_answer(w, &reply, record);
        /* A coordinator that does not hold requests must not be asked in a tight loop. */
        bool early = lmo_ms_until(began_ns + hold * LMO_NS_PER_MS) > hold / 2;
        if (rc == 0 && known && w->spec->versioned && early && lmo_api_u64(*record, "version") == version)
            lmo_wait_pause(LMO_WAIT_RETRY_MS);
    }
    free(reply.body);
    return rc;
}

static int follow(struct lmo_wait *w, json_t **record)
{
    for (;;) {
        if (*record) {
            if (w->spec->show)
                w->spec->show(w, *record);
            int outcome = w->spec->outcome(w, *record);
            if (outcome >= 0)
                return outcome;
        }
        if (w->deadline_ns && *record && lmo_ms_until(w->deadline_ns) == 0) {
            lmo_wait_end_line(w);
            char state[128];
            w->spec->state(w, *record, state, sizeof state);
            lmo_cli_message(w->cli, "still %s when the time was up%s%s. %s.", state, *w->spec->goes_on ? "; " : "",
                            w->spec->goes_on, w->later);
            return LMO_EXIT_WAIT_OVER;
        }
        int rc = ask(w, record);
        if (rc != 0) {
            lmo_wait_end_line(w);
            return rc;
        }
    }
}

int lmo_wait_for(struct lmo_wait *w, const json_t *first, uint64_t timeout_ms, json_t **ret_record)
{
    if (timeout_ms > 0)
        w->deadline_ns = lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;
    struct sigaction old;
    catch_interrupt(w, &old);
    json_t *record = json_incref((json_t *)(uintptr_t)first);
    int rc = follow(w, &record);
    sigaction(SIGINT, &old, NULL);
    *ret_record = record;
    return rc;
}
