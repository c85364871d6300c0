/* wait.c - see wait.h.
 *
 * The record is asked for with wait_version = the version in hand, so the coordinator answers when something has
 * changed and not before. A coordinator that goes away meanwhile (restart, take-over) is waited for: the migration does
 * not depend on it being there, and its record will tell. Only what ends the wait decides the exit code. */
#include "cli/wait.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/render.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#define HOLD_MS         25000 /* how long the coordinator may hold one request */
#define ANSWER_GRACE_MS 10000 /* on top of it */
#define RETRY_PAUSE_MS  500
#define PATIENCE_MS     60000

struct wait {
    struct lmo_cli *cli;
    const char *id;
    uint64_t deadline_ns;  /* 0: none */
    size_t shown;          /* rows of phases[] that were printed */
    char live_phase[64];   /* phase of the line that is being redrawn; "" none */
    char waiting_for[160]; /* as said last, where lines are not redrawn */
    bool warned;           /* that it is predicted not to converge */
    bool lost;             /* the coordinator did not answer the last time */
    uint64_t lost_since_ns;
};

/* ------------------------------------------------------------------ interruption */

/* The handler may only write and leave, so the text is made beforehand. */
static char interrupted_text[256];

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    ssize_t n = write(STDERR_FILENO, interrupted_text, strlen(interrupted_text));
    _exit(n < 0 ? LMO_EXIT_FAILED : LMO_EXIT_INTERRUPTED);
}

static void catch_interrupt(const struct wait *w, struct sigaction *ret_old)
{
    snprintf(interrupted_text, sizeof interrupted_text,
             "%slmo: no longer waiting; the migration goes on. `lmo migration wait %s` or `lmo migration cancel %s`.\n",
             w->cli->err_style.tty ? "\n" : "", w->id, w->id);
    struct sigaction sa = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &sa, ret_old);
}

/* ------------------------------------------------------------------ what is seen meanwhile */

static void end_live_line(struct wait *w)
{
    if (w->live_phase[0])
        fputc('\n', w->cli->err);
    w->live_phase[0] = '\0';
}

/* One line per phase that has begun since the last look: "+   0.024 s  precheck". */
static void show_phase(struct wait *w, const json_t *record, const json_t *phase)
{
    const struct lmo_style *s = &w->cli->err_style;
    char name[64];
    uint64_t from = lmo_api_u64(record, "created_ms"), at = lmo_api_u64(phase, "started_ms");
    enum lmo_color c = lmo_render_phase_color(lmo_api_text(phase, "name"));
    fprintf(w->cli->err, "+%8.3f s  %s%s%s\n", at > from ? (double)(at - from) / 1e3 : 0.0, lmo_color_on(s, c),
            lmo_format_safe(lmo_api_text(phase, "name"), name, sizeof name), lmo_color_off(s, c));
}

/* The same on a terminal, with how long it took once it is over. */
static void show_phase_live(struct wait *w, const json_t *phase)
{
    const struct lmo_style *s = &w->cli->err_style;
    char name[64], took[LMO_FORMAT_MAX];
    enum lmo_color c = lmo_render_phase_color(lmo_api_text(phase, "name"));
    lmo_format_safe(lmo_api_text(phase, "name"), name, sizeof name);
    fprintf(w->cli->err, "\r\033[K%s%-18s%s %s\n", lmo_color_on(s, c), name, lmo_color_off(s, c),
            lmo_render_ms(phase, "ms", took));
    w->live_phase[0] = '\0';
}

static void warn_once(struct wait *w, const json_t *record)
{
    const json_t *prediction = json_object_get(json_object_get(record, "convergence"), "prediction");
    const char *outlook = lmo_api_text(prediction, "outlook");
    if (w->warned || (strcmp(outlook, "never") != 0 && strcmp(outlook, "too_slow") != 0))
        return;
    w->warned = true;
    if (w->cli->err_style.tty)
        fputs("\r\033[K", w->cli->err);
    lmo_cli_message(w->cli, "predicted: %s", lmo_api_text(prediction, "text"));
}

static void show(struct wait *w, const json_t *record)
{
    const json_t *phases = json_object_get(record, "phases");
    size_t count = json_array_size(phases);
    bool live = w->cli->err_style.tty, over = lmo_wait_outcome(record) >= 0;
    for (; w->shown < count; w->shown++) {
        const json_t *p = json_array_get(phases, w->shown);
        if (live && lmo_api_u64(p, "ended_ms") == 0)
            break; /* its line is not finished yet */
        if (live)
            show_phase_live(w, p);
        else
            show_phase(w, record, p);
    }
    warn_once(w, record);
    const char *why = lmo_api_text(record, "waiting_for");
    if (!live && strncmp(why, w->waiting_for, sizeof w->waiting_for - 1) != 0) {
        snprintf(w->waiting_for, sizeof w->waiting_for, "%s", why);
        if (*why)
            lmo_cli_message(w->cli, "%s, waiting: %s", lmo_api_text(record, "phase"), why);
    }
    if (live && !over) {
        char line[LMO_RENDER_LINE_MAX];
        lmo_render_progress(record, line);
        unsigned width = w->cli->err_style.width;
        if (width > 1 && strlen(line) >= width)
            line[width - 1] = '\0'; /* a wrapped line cannot be redrawn */
        fprintf(w->cli->err, "\r\033[K%s", line);
        snprintf(w->live_phase, sizeof w->live_phase, "%s", lmo_api_text(record, "phase"));
    } else if (live) {
        fputs("\r\033[K", w->cli->err);
        w->live_phase[0] = '\0';
    }
    fflush(w->cli->err);
}

int lmo_wait_outcome(const json_t *migration)
{
    const char *o = lmo_api_text(migration, "outcome");
    if (strcmp(o, "completed") == 0)
        return LMO_EXIT_OK;
    if (strcmp(o, "aborted") == 0)
        return LMO_EXIT_ABORTED;
    if (strcmp(o, "attention") == 0 || strcmp(o, "abandoned") == 0)
        return LMO_EXIT_ATTENTION;
    return -1;
}

/* ------------------------------------------------------------------ asking */

/* A pause of the waiting side alone; nothing is timed by it. */
static void pause_ms(uint64_t ms)
{
    poll(NULL, 0, (int)ms);
}

static bool comes_back(const struct lmo_cli_reply *reply, int rc)
{
    if (rc < 0)
        return rc == LMO_E_UNAVAILABLE || rc == LMO_E_TIMEOUT || rc == LMO_E_UNKNOWN;
    return reply->status == 429 || reply->status == 502 || reply->status == 503 || reply->status == 504;
}

/* 0: try again. Otherwise the exit code. */
static int bear_with(struct wait *w, const struct lmo_err *err)
{
    struct lmo_cli *cli = w->cli;
    uint64_t now = lmo_now_ns();
    if (!w->lost) {
        end_live_line(w);
        lmo_cli_message(cli, "the coordinator does not answer (%s); the migration goes on, trying again",
                        err->text[0] ? err->text : "busy");
        w->lost_since_ns = now;
        w->lost = true;
    }
    uint64_t patience_ms = cli->patience_ms ? cli->patience_ms : PATIENCE_MS;
    if (now - w->lost_since_ns >= patience_ms * LMO_NS_PER_MS) {
        lmo_cli_message(cli, "no answer for %" PRIu64 " s. Later: `lmo migration wait %s`", patience_ms / 1000, w->id);
        return LMO_EXIT_UNREACHABLE;
    }
    pause_ms(cli->retry_pause_ms ? cli->retry_pause_ms : RETRY_PAUSE_MS);
    return 0;
}

static uint64_t hold_ms(const struct wait *w)
{
    uint64_t left = w->deadline_ns ? lmo_ms_until(w->deadline_ns) : HOLD_MS;
    return left < HOLD_MS ? left : HOLD_MS;
}

/* "/v1/migrations/ID", and once there is a record, "?wait_version=N&wait_ms=M". */
static bool ask_path(const struct wait *w, const json_t *record, uint64_t hold, char path[LMO_API_PATH_MAX])
{
    char version[32], wait[32];
    if (!lmo_api_path(path, "/v1/migrations/", w->id, ""))
        return false;
    if (!record)
        return true;
    snprintf(version, sizeof version, "%" PRIu64, lmo_api_u64(record, "version"));
    snprintf(wait, sizeof wait, "%" PRIu64, hold);
    return lmo_api_query(path, "wait_version", version) && lmo_api_query(path, "wait_ms", wait);
}

/* Puts what the coordinator answered into *record, if it is a record. 0 or an exit code. */
static int take_answer(struct wait *w, const struct lmo_cli_reply *reply, json_t **record)
{
    if (w->lost)
        lmo_cli_message(w->cli, "the coordinator answers again");
    w->lost = false;
    if (reply->status == 304)
        return 0; /* nothing newer */
    json_t *json = NULL;
    int rc = lmo_api_accept(w->cli, reply, &json);
    if (rc != 0)
        return rc;
    if (*lmo_api_text(json, "phase") == '\0') {
        json_decref(json);
        lmo_cli_message(w->cli, "the answer is not a migration's record: is --url the coordinator's?");
        return LMO_EXIT_PROTOCOL;
    }
    json_decref(*record);
    *record = json;
    return 0;
}

/* Replaces *record when there is a newer one. 0 or an exit code. */
static int ask(struct wait *w, json_t **record)
{
    char path[LMO_API_PATH_MAX];
    uint64_t hold = hold_ms(w), version = lmo_api_u64(*record, "version"), began_ns = lmo_now_ns();
    bool known = *record != NULL;
    if (!ask_path(w, *record, hold, path)) {
        lmo_cli_message(w->cli, "\"%.60s\" cannot be the id of a migration", w->id);
        return LMO_EXIT_USAGE;
    }
    struct lmo_cli_call call = {.method = "GET", .path = path, .timeout_ms = hold + ANSWER_GRACE_MS};
    struct lmo_cli_reply reply = {0};
    struct lmo_err err = {0};
    int rc = lmo_api_request(w->cli, &call, &reply, &err);
    /* A migration never seen may not exist: that is a plain failure, reported as any other. */
    if (known && comes_back(&reply, rc))
        rc = bear_with(w, &err);
    else if (rc < 0)
        rc = lmo_api_unreached(w->cli, &err);
    else {
        rc = take_answer(w, &reply, record);
        /* A coordinator that does not hold requests must not be asked in a tight loop. */
        bool early = lmo_ms_until(began_ns + hold * LMO_NS_PER_MS) > hold / 2;
        if (rc == 0 && known && early && lmo_api_u64(*record, "version") == version)
            pause_ms(RETRY_PAUSE_MS);
    }
    free(reply.body);
    return rc;
}

static int follow(struct wait *w, json_t **record)
{
    for (;;) {
        if (*record) {
            show(w, *record);
            int outcome = lmo_wait_outcome(*record);
            if (outcome >= 0)
                return outcome;
        }
        if (w->deadline_ns && *record && lmo_ms_until(w->deadline_ns) == 0) {
            end_live_line(w);
            lmo_cli_message(w->cli,
                            "still in phase %s when the time was up; the migration goes on. "
                            "`lmo migration wait %s` or `lmo migration cancel %s`.",
                            lmo_api_text(*record, "phase"), w->id, w->id);
            return LMO_EXIT_WAIT_OVER;
        }
        int rc = ask(w, record);
        if (rc != 0) {
            end_live_line(w);
            return rc;
        }
    }
}

int lmo_wait_run(struct lmo_cli *cli, const char *id, const json_t *first, uint64_t timeout_ms, json_t **ret_record)
{
    struct wait w = {.cli = cli, .id = id};
    if (timeout_ms > 0)
        w.deadline_ns = lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;
    struct sigaction old;
    catch_interrupt(&w, &old);
    json_t *record = json_incref((json_t *)(uintptr_t)first);
    int rc = follow(&w, &record);
    sigaction(SIGINT, &old, NULL);
    *ret_record = record;
    return rc;
}
