/* cmd_top.c - `lmo top`: asks every few seconds and draws; on a terminal with keys, elsewhere block after block.
 *
 * One thread, one loop: requests run on it (cli.h), and so do the terminal's keys and the signals, so that a key is answered
 * while the coordinator is not. A key or a signal that ends it stops the loop, which interrupts the request under way. */
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/loop.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/settings.h"
#include "cli/term.h"
#include "cli/top_view.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define INTERVAL_MS 2000
#define ASK_MS      5000 /* for one request; keys are answered meanwhile */
#define FRAME_MAX   ((size_t)4 << 20)

struct top {
    struct lmo_cli *cli;
    struct lmo_loop *loop;
    struct lmo_top_model model;
    struct lmo_top_view view;
    char where[128];
    int in, out;
    bool full;       /* a whole screen of our own */
    bool over;       /* end, with `rc` */
    bool asking;     /* a request is under way */
    bool now;        /* look once more although it is paused */
    bool no_drains;  /* the coordinator has no such thing */
    int rc, kill_by; /* kill_by: signal that ends us, after everything was tidied up; 0 none */
    uint64_t interval_ms, timer;
    uint64_t frames, most; /* most 0: no end */
    struct lmo_buf frame;
};

static void end(struct top *t, int rc)
{
    t->over = true;
    t->rc = rc;
    lmo_loop_stop(t->loop);
}

/* ------------------------------------------------------------------ drawing */

struct pen {
    struct top *t;
    bool any, failed;
};

static void draw_line(void *arg, enum lmo_color color, const char *text)
{
    struct pen *p = arg;
    const struct lmo_style *s = &p->t->cli->out_style;
    /* The last line has no end: it would scroll the screen. */
    const char *between = !p->t->full ? "" : p->any ? "\r\n" : "\033[H";
    p->failed |= lmo_buf_appendf(&p->t->frame, "%s%s%s%s%s", between, lmo_color_on(s, color), text,
                                 lmo_color_off(s, color), p->t->full ? "\033[K" : "\n") < 0;
    p->any = true;
}

/* One write a picture: nothing flickers. */
static void draw(struct top *t)
{
    struct pen pen = {.t = t};
    t->view.now_ms = lmo_realtime_us() / 1000;
    if (t->full)
        lmo_term_size(t->out, &t->view.width, &t->view.height);
    lmo_buf_reset(&t->frame);
    lmo_top_draw(&t->model, &t->view, draw_line, &pen);
    pen.failed |= lmo_buf_append_str(&t->frame, t->full ? "\033[J" : "\n") < 0;
    if (pen.failed)
        return; /* too much for one picture: the next one may fit */
    if (t->full) {
        if (lmo_term_write(t->out, t->frame.data, t->frame.len) < 0)
            end(t, LMO_EXIT_FAILED);
        return;
    }
    fwrite(t->frame.data, 1, t->frame.len, t->cli->out);
    if (fflush(t->cli->out) != 0)
        end(t, LMO_EXIT_FAILED);
}

static void print_document(struct top *t)
{
    LMO_AUTO_JSON json_t *doc =
        json_pack("{s:I, s:O*, s:O*, s:O*, s:s*}", "at_ms", (json_int_t)t->model.at_ms, "hosts",
                  json_object_get(t->model.hosts, "hosts"), "migrations",
                  json_object_get(t->model.migrations, "migrations"), "drains",
                  json_object_get(t->model.drains, "drains"), "problem", t->model.problem[0] ? t->model.problem : NULL);
    if (!doc || json_dumpf(doc, t->cli->out, JSON_COMPACT) < 0 || fputc('\n', t->cli->out) == EOF ||
        fflush(t->cli->out) != 0)
        end(t, LMO_EXIT_FAILED);
}

static void show(struct top *t)
{
    t->frames++;
    if (LMO_GIVEN(&t->cli->args, JSON))
        print_document(t);
    else
        draw(t);
    if (t->most > 0 && t->frames >= t->most)
        end(t, t->rc);
}

/* ------------------------------------------------------------------ asking */

/* 0 and *list replaced; otherwise an LMO_E_*, with the model's problem set. `absent`: set on a 404. */
static int ask(struct top *t, const char *path, json_t **list, bool *absent)
{
    struct lmo_cli_call call = {.method = "GET", .path = path, .timeout_ms = ASK_MS};
    struct lmo_cli_reply reply = {0};
    struct lmo_err err = {0};
    json_t *answer = NULL;
    int rc = lmo_api_request(t->cli, &call, &reply, &err);
    if (rc == 0 && reply.status == 404 && absent) {
        *absent = true;
    } else if (rc == 0) {
        rc = lmo_json_parse_object(reply.body, reply.body_len, (size_t)64 << 20, &answer, &err);
        if (rc == 0 && reply.status != 200) {
            const char *detail = lmo_api_text(answer, "detail");
            rc = lmo_fail(&err, reply.status == 401 || reply.status == 403 ? LMO_E_FORBIDDEN : LMO_E_UNAVAILABLE,
                          "%s (%u)", *detail ? detail : "refused", reply.status);
        }
    }
    free(reply.body);
    if (rc == 0 && answer) {
        json_decref(*list);
        *list = json_incref(answer);
    } else if (rc < 0) {
        lmo_format_safe(err.text, t->model.problem, sizeof t->model.problem);
    }
    json_decref(answer);
    return rc;
}

/* Returns the outcome of the first request that failed. */
static int refresh(struct top *t)
{
    t->asking = true;
    int rc = ask(t, "/v1/hosts", &t->model.hosts, NULL);
    if (rc == 0 && !t->over)
        rc = ask(t, "/v1/migrations?state=open&limit=1000", &t->model.migrations, NULL);
    if (rc == 0 && !t->over && !t->no_drains)
        rc = ask(t, "/v1/drains?limit=100", &t->model.drains, &t->no_drains);
    t->asking = false;
    if (rc == 0) {
        t->model.at_ms = lmo_realtime_us() / 1000;
        t->model.problem[0] = '\0';
    }
    return rc;
}

/* ------------------------------------------------------------------ keys and signals */

static void on_due(void *arg)
{
    struct top *t = arg;
    t->timer = 0;
    lmo_loop_stop(t->loop);
}

/* Looks again at once, unless it is looking. */
static void look_now(struct top *t)
{
    t->now = true;
    if (!t->asking)
        lmo_loop_stop(t->loop);
}

static void edit_filter(struct top *t, enum lmo_key key, const char *text)
{
    char *f = t->view.filter;
    size_t len = strlen(f);
    if (key == LMO_KEY_ENTER || key == LMO_KEY_ESCAPE)
        t->view.editing = false;
    if (key == LMO_KEY_ESCAPE)
        f[0] = '\0';
    if (key == LMO_KEY_BACKSPACE) {
        while (len > 0 && ((unsigned char)f[len - 1] & 0xc0) == 0x80)
            len--;
        f[len > 0 ? len - 1 : 0] = '\0';
    }
    if (key == LMO_KEY_TEXT && len + strlen(text) < sizeof t->view.filter)
        strcat(f, text);
    t->view.offset = 0;
}

static void press(struct top *t, char c)
{
    struct lmo_top_view *v = &t->view;
    switch (c) {
    case 'q':
    case 'Q': end(t, LMO_EXIT_OK); break;
    case 'p': v->paused = !v->paused; break;
    case 's': v->sort = (enum lmo_top_sort)(((int)v->sort + 1) % LMO_TOP_SORT_COUNT); break;
    case '/':
    case 'f': v->editing = true; break;
    case 'k': v->offset -= v->offset > 0; break;
    case 'j': v->offset++; break;
    case ' ':
    case 'r': look_now(t); break;
    default: break;
    }
}

static void take_key(struct top *t, enum lmo_key key, const char *text)
{
    struct lmo_top_view *v = &t->view;
    size_t page = v->height > 10 ? v->height / 2 : 5;
    if (v->editing) {
        edit_filter(t, key, text);
        return;
    }
    switch (key) {
    case LMO_KEY_TEXT: press(t, text[0]); break;
    case LMO_KEY_UP: v->offset -= v->offset > 0; break;
    case LMO_KEY_DOWN: v->offset++; break;
    case LMO_KEY_PAGE_UP: v->offset -= v->offset < page ? v->offset : page; break;
    case LMO_KEY_PAGE_DOWN: v->offset += page; break;
    case LMO_KEY_HOME: v->offset = 0; break;
    case LMO_KEY_END: v->offset = SIZE_MAX / 2; break;
    case LMO_KEY_ESCAPE: v->filter[0] = '\0'; break;
    case LMO_KEY_NONE:
    case LMO_KEY_ENTER:
    case LMO_KEY_BACKSPACE:
    case LMO_KEY_OTHER: break;
    }
}

static void on_keys(void *arg, int fd, uint32_t events)
{
    struct top *t = arg;
    char data[256], text[8];
    size_t used = 0;
    (void)events;
    ssize_t n = read(fd, data, sizeof data);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        end(t, LMO_EXIT_FAILED); /* the terminal is gone */
        return;
    }
    for (enum lmo_key key; !t->over && (key = lmo_term_key(data, (size_t)n, &used, text)) != LMO_KEY_NONE;)
        take_key(t, key, text);
    if (!t->over)
        draw(t);
}

static void on_signal(void *arg, int number)
{
    struct top *t = arg;
    struct lmo_err err = {0};
    switch (number) {
    case SIGWINCH:
        if (t->full)
            draw(t);
        break;
    case SIGTSTP:
        if (lmo_term_suspend(t->in, t->out, &err) < 0)
            end(t, LMO_EXIT_FAILED);
        else
            draw(t);
        break;
    case SIGINT: end(t, LMO_EXIT_INTERRUPTED); break;
    default:
        t->kill_by = number;
        end(t, LMO_EXIT_FAILED);
        break;
    }
}

/* ------------------------------------------------------------------ life */

static int enter(struct top *t, struct lmo_err *err)
{
    static const int screen[] = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH, 0}, block[] = {SIGINT, 0};
    int rc = lmo_loop_signals(t->loop, t->full ? screen : block, on_signal, t, err);
    if (rc == 0 && t->full)
        rc = lmo_term_enter(t->in, t->out, err);
    if (rc == 0 && t->full)
        rc = lmo_loop_add_fd(t->loop, t->in, EPOLLIN, on_keys, t, err);
    return rc;
}

static void run(struct top *t)
{
    struct lmo_err err = {0};
    if (t->full)
        draw(t);
    while (!t->over) {
        uint64_t due = lmo_now_ns() + t->interval_ms * LMO_NS_PER_MS;
        if (!t->view.paused || t->now || t->model.at_ms == 0) {
            t->now = false;
            int rc = refresh(t);
            if (t->over)
                break;
            /* What will not be better the next time ends it, but only before anything was seen. */
            if (rc < 0 && t->model.at_ms == 0 &&
                (rc == LMO_E_INVALID || rc == LMO_E_UNAUTHENTICATED || rc == LMO_E_FORBIDDEN || !t->full)) {
                (void)lmo_fail(&err, rc, "%s", t->model.problem);
                lmo_term_leave();
                end(t, lmo_api_unreached(t->cli, &err));
                break;
            }
            show(t);
        }
        if (t->over)
            break;
        uint64_t left = lmo_ms_until(due);
        if (lmo_loop_timer(t->loop, left > 0 ? left : 1, on_due, t, &t->timer) < 0 || lmo_loop_run(t->loop) < 0)
            end(t, LMO_EXIT_FAILED);
        lmo_loop_cancel(t->loop, &t->timer);
    }
}

/* The context's name or the coordinator's address, for the heading. */
static void say_where(struct top *t)
{
    struct lmo_settings s;
    struct lmo_err err = {0};
    if (lmo_settings_load(t->cli, &s, &err) == 0) {
        const char *url = s.text[LMO_CONTEXT_URL] ? s.text[LMO_CONTEXT_URL] : "";
        lmo_format_safe(*s.context ? s.context : url, t->where, sizeof t->where);
    }
    lmo_settings_release(&s);
}

int lmo_cmd_top(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    struct top t = {.cli = cli, .in = STDIN_FILENO, .out = STDOUT_FILENO, .frame = {.max = FRAME_MAX}};
    struct lmo_err err = {0};
    t.view.sort = LMO_GIVEN(a, SORT) ? lmo_top_sort_from_name(a->text[LMO_OPT_SORT]) : LMO_TOP_BY_AGE;
    if (t.view.sort == LMO_TOP_SORT_COUNT) {
        lmo_cli_message(cli, "top: --sort=%.40s: must be age, progress, eta, rate or name", a->text[LMO_OPT_SORT]);
        return LMO_EXIT_USAGE;
    }
    snprintf(t.view.filter, sizeof t.view.filter, "%s", LMO_GIVEN(a, FILTER) ? a->text[LMO_OPT_FILTER] : "");
    t.interval_ms = LMO_GIVEN(a, INTERVAL) ? a->number[LMO_OPT_INTERVAL] : INTERVAL_MS;
    t.most = LMO_GIVEN(a, ONCE) ? 1 : a->number[LMO_OPT_TIMES];
    t.full = cli->out_style.tty && isatty(t.in) && !LMO_GIVEN(a, JSON) && !LMO_GIVEN(a, PLAIN) && !LMO_GIVEN(a, ONCE);
    t.view.width = t.full ? 0 : cli->out_style.width;
    t.view.interactive = t.full;
    t.view.where = t.where;
    say_where(&t);
    int rc = lmo_cli_loop(cli, &t.loop, &err);
    if (rc == 0)
        rc = enter(&t, &err);
    if (rc == 0)
        run(&t);
    if (t.loop && t.full)
        lmo_loop_del_fd(t.loop, t.in);
    lmo_term_leave();
    lmo_buf_done(&t.frame);
    lmo_top_model_release(&t.model);
    if (rc < 0)
        return lmo_cli_failed(cli, &err);
    if (t.kill_by) { /* whoever sent it sees that it was heeded */
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, t.kill_by);
        signal(t.kill_by, SIG_DFL);
        raise(t.kill_by);
        sigprocmask(SIG_UNBLOCK, &one, NULL);
    }
    return t.rc;
}
