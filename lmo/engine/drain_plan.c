/* drain_plan.c - what clients ask for: drains, rebalancing, why a guest is or is not taken by a host. Each looks at the fleet
 * first (fleet.c: nothing older than LMO_SEEN_FRESH_MS), then has one plan made, then shows it or carries it out. */
#include "engine/drains_internal.h"

#include "base/assert.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BALANCE_HOST     "rebalance"
#define REPEAT_COMMIT_MS 25000 /* before the API itself gives up */

struct asking {
    struct lmo_engine *engine;
    struct lmo_drain_request req;
    enum lmo_plan_kind kind;
    char vm[LMO_NAME_MAX];
    bool explain;
    struct lmo_ask ask;
    struct keyed *keyed;
    lmo_engine_reply_fn *fn;
    void *arg;
};

static void asking_free(void *arg)
{
    struct asking *a = arg;
    free(a->req.hosts);
    free(a);
}

static void fail(struct asking *a, int code, const char *field, const char *text)
{
    engine_reply_fail(a->fn, a->arg, code, field, "%s", text);
    asking_free(a);
}

/* ------------------------------------------------------------------ the plan */

struct planned {
    struct snapshot s;
    struct lmo_plan plan;
    struct lmo_plan_options options;
    uint32_t *hosts;
    void *scratch;
    char digest[LMO_DRAIN_PLAN_MAX];
};

static void planned_done(struct planned *p)
{
    free(p->plan.moves);
    free(p->plan.stages);
    free(p->plan.blocked);
    free(p->plan.after);
    free(p->hosts);
    free(p->scratch);
    engine_snapshot_done(&p->s);
    *p = (struct planned){0};
}

static void hash_text(uint64_t h[2], const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text;; c++) { /* the terminator too: it parts the texts */
        h[0] = (h[0] ^ *c) * UINT64_C(1099511628211);
        h[1] = (h[1] + *c) * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        if (*c == '\0') {
            return;
        }
    }
}

static void hash_number(uint64_t h[2], uint64_t n)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, n);
    hash_text(h, text);
}

/* What is done, where and in which order; not how long it should take: that changes with every measurement. */
static void digest(struct planned *p)
{
    uint64_t h[2] = {UINT64_C(1469598103934665603), UINT64_C(88172645463325252)};
    for (uint32_t i = 0; i < p->plan.stage_count; i++) {
        const struct lmo_plan_stage *s = &p->plan.stages[i];
        hash_text(h, p->s.hosts[s->host]->row.name);
        for (uint32_t n = 0; n < s->after_count; n++) {
            hash_number(h, p->plan.after[s->after_first + n]);
        }
    }
    for (uint32_t i = 0; i < p->plan.move_count; i++) {
        const struct lmo_plan_move *m = &p->plan.moves[i];
        hash_text(h, p->s.guests[m->guest]->uuid);
        hash_text(h, p->s.hosts[m->from]->row.name);
        hash_text(h, p->s.hosts[m->to]->row.name);
        hash_number(h, (uint64_t)m->way * 16 + (uint64_t)m->why);
        hash_number(h, m->after_stage);
        for (uint32_t n = 0; n < m->after_count; n++) {
            hash_number(h, p->plan.after[m->after_first + n]);
        }
    }
    for (uint32_t i = 0; i < p->plan.blocked_count; i++) {
        hash_text(h, p->s.guests[p->plan.blocked[i].guest]->uuid);
        hash_number(h, (uint64_t)p->plan.blocked[i].why);
    }
    (void)snprintf(p->digest, sizeof p->digest, "%016" PRIx64 "%016" PRIx64, h[0], h[1]);
}

static int plan(struct asking *a, struct planned *p, const char **field, struct lmo_err *err)
{
    const struct lmo_drain_request *req = &a->req;
    struct lmo_plan_sizes sizes;
    *p = (struct planned){0};
    *field = "";
    int r = engine_snapshot(a->engine, req->unmovable, &p->s, err);
    if (r < 0) {
        return r;
    }
    p->hosts = calloc(req->host_count + 1, sizeof *p->hosts);
    for (uint32_t i = 0; p->hosts && i < req->host_count; i++) {
        p->hosts[i] = engine_snapshot_host(&p->s, req->hosts[i]);
        if (p->hosts[i] == LMO_NONE) { /* removed while the others were being asked */
            *field = "hosts";
            r = lmo_fail(err, LMO_E_NOT_FOUND, "host %s is not registered", req->hosts[i]);
            planned_done(p);
            return r;
        }
    }
    p->options = (struct lmo_plan_options){.kind = a->kind,
                                           .hosts = a->kind == LMO_PLAN_EMPTY ? p->hosts : NULL,
                                           .host_count = a->kind == LMO_PLAN_EMPTY ? req->host_count : 0,
                                           .max_hosts = req->max_hosts,
                                           .spare_hosts = req->spare_hosts,
                                           .give_back = req->give_back};
    const char *wrong = p->hosts ? lmo_plan_options_wrong(&p->s.fleet, &p->options) : "no memory for a plan";
    if (wrong) {
        *field = "hosts";
        r = lmo_fail(err, LMO_E_INVALID, "%s", wrong);
        planned_done(p);
        return r;
    }
    lmo_plan_sizes(&p->s.fleet, &p->options, &sizes);
    p->plan = (struct lmo_plan){.moves = calloc(sizes.move_max + 1U, sizeof *p->plan.moves),
                                .stages = calloc(sizes.stage_max + 1U, sizeof *p->plan.stages),
                                .blocked = calloc(sizes.blocked_max + 1U, sizeof *p->plan.blocked),
                                .after = calloc(sizes.after_max + 1U, sizeof *p->plan.after),
                                .move_max = sizes.move_max,
                                .stage_max = sizes.stage_max,
                                .blocked_max = sizes.blocked_max,
                                .after_max = sizes.after_max};
    p->scratch = malloc(sizes.scratch_bytes + 1);
    if (!p->plan.moves || !p->plan.stages || !p->plan.blocked || !p->plan.after || !p->scratch) {
        planned_done(p);
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a plan of %u moves", sizes.move_max);
    }
    lmo_plan_make(&p->s.fleet, &p->options, p->scratch, &p->plan);
    digest(p);
    return 0;
}

/* ------------------------------------------------------------------ from the plan to the drain */

static void add_ref(struct lmo_drain_ref *refs, unsigned *count, uint32_t n)
{
    for (unsigned i = 0; i < *count; i++) {
        if (refs[i].n == n) {
            return;
        }
    }
    if (*count == LMO_DRAIN_AFTER_MAX) { /* the last ones are kept */
        memmove(refs, refs + 1, (LMO_DRAIN_AFTER_MAX - 1) * sizeof *refs);
        (*count)--;
    }
    refs[(*count)++].n = n;
}

static void fill_guest(struct lmo_drain_guest *to, const struct planned *p, uint32_t guest, uint32_t host,
                       const char *at)
{
    const struct guest *g = p->s.guests[guest];
    *to = (struct lmo_drain_guest){.host = host,
                                   .state = LMO_DG_QUEUED,
                                   .policy = p->s.fleet_guests[guest].unmovable,
                                   .shut_off = g->state == LMO_RUN_SHUT_OFF,
                                   .after_host = LMO_DRAIN_NONE,
                                   .memory_bytes = g->memory_bytes};
    LMO_COPY(to->uuid, g->uuid);
    LMO_COPY(to->name, g->name);
    LMO_COPY(to->at, at);
}

/* Returning guests are not carried out move by move: whatever a host's turn moved off it goes back, and only which hosts have to wait
 * for that is kept. */
static void fill_moves(struct lmo_drain *d, const struct planned *p, uint32_t *index)
{
    const struct lmo_plan *plan = &p->plan;
    for (uint32_t i = 0; i < plan->move_count; i++) {
        const struct lmo_plan_move *m = &plan->moves[i];
        uint32_t host = m->stage == LMO_NONE ? 0 : m->stage;
        index[i] = LMO_NONE;
        if (m->why == LMO_MOVE_GIVE_BACK) {
            continue;
        }
        struct lmo_drain_guest *g = &d->guests[d->guest_count];
        fill_guest(g, p, m->guest, host, p->s.hosts[m->from]->row.name);
        LMO_COPY(g->destination, p->s.hosts[m->to]->row.name);
        g->why = m->why;
        g->order = i;
        g->low_ms = m->low_ms;
        g->high_ms = m->high_ms;
        g->after_host = m->after_stage == LMO_NONE || m->after_stage == m->stage ? LMO_DRAIN_NONE : m->after_stage;
        for (uint32_t n = 0; n < m->after_count; n++) {
            uint32_t first = plan->after[m->after_first + n];
            if (index[first] != LMO_NONE) {
                add_ref(g->after, &g->after_count, index[first]);
            } else if (plan->moves[first].stage != LMO_NONE && plan->moves[first].stage != host) {
                g->after_host = plan->moves[first].stage; /* it returns at the end of that turn */
            }
        }
        index[i] = d->guest_count++;
    }
    for (uint32_t i = 0; i < plan->blocked_count; i++) {
        const struct lmo_plan_blocked *b = &plan->blocked[i];
        struct lmo_drain_guest *g = &d->guests[d->guest_count++];
        fill_guest(g, p, b->guest, b->stage, p->s.guests[b->guest]->host->row.name);
        g->order = plan->move_count + i;
        LMO_COPY(g->reason, b->text);
    }
}

static void fill_hosts(struct lmo_drain *d, const struct planned *p, bool balance)
{
    if (balance) {
        LMO_COPY(d->hosts[0].name, BALANCE_HOST);
        return;
    }
    for (uint32_t i = 0; i < p->plan.stage_count; i++) {
        const struct lmo_plan_stage *s = &p->plan.stages[i];
        struct lmo_drain_host *h = &d->hosts[i];
        LMO_COPY(h->name, p->s.hosts[s->host]->row.name);
        h->was_cordoned = p->s.hosts[s->host]->mark.cordoned;
        for (uint32_t n = 0; n < s->after_count; n++) {
            add_ref(h->after, &h->after_count, p->plan.after[s->after_first + n]);
        }
    }
}

static int make(struct asking *a, const struct planned *p, struct lmo_err *err)
{
    struct lmo_engine *e = a->engine;
    bool balance = a->kind != LMO_PLAN_EMPTY;
    struct lmo_drain d = {.state = LMO_DRAIN_PLANNING,
                          .max_hosts = a->req.max_hosts,
                          .keep_free = a->req.spare_hosts,
                          .give_back = a->req.give_back,
                          .rolling = a->req.rolling,
                          .balance = balance,
                          .unmovable = a->req.unmovable,
                          .wait_timeout_ms =
                              a->req.wait_timeout_ms ? a->req.wait_timeout_ms : LMO_DRAIN_WAIT_DEFAULT_MS,
                          .low_ms = p->plan.low_ms,
                          .high_ms = p->plan.high_ms,
                          .created_ms = engine_now_ms(e),
                          .updated_ms = engine_now_ms(e),
                          .state_ms = engine_now_ms(e),
                          .host_count = balance ? 1 : p->plan.stage_count};
    uint32_t *index = calloc(p->plan.move_count + 1U, sizeof *index);
    d.hosts = calloc(d.host_count + 1U, sizeof *d.hosts);
    d.guests = calloc(p->plan.move_count + p->plan.blocked_count + 1U, sizeof *d.guests);
    if (!index || !d.hosts || !d.guests) {
        free(index);
        engine_drain_free_arrays(&d);
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a drain");
    }
    lmo_ulid_generate(d.id);
    LMO_COPY(d.hook_url, a->req.hook_url);
    LMO_COPY(d.hook_command, a->req.hook_command);
    LMO_COPY(d.principal, a->req.principal);
    LMO_COPY(d.plan, p->digest);
    fill_hosts(&d, p, balance);
    fill_moves(&d, p, index);
    free(index);
    struct drain *dr = d.guest_count <= LMO_DRAIN_GUESTS_MAX ? engine_drain_new(e, &d) : NULL;
    if (!dr) {
        engine_drain_free_arrays(&d);
        return lmo_fail(err, LMO_E_LIMIT, "a drain of %u moves: %d is the limit", d.guest_count, LMO_DRAIN_GUESTS_MAX);
    }
    dr->created_fn = a->fn;
    dr->created_arg = a->arg;
    dr->created_keyed = a->keyed;
    struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_PLANNED};
    engine_drain_event(dr, &ev);
    lmo_log(LMO_LOG_INFO, "drain accepted", "drain=%s hosts=%u moves=%u blocked=%u by=%s", d.id, d.host_count,
            p->plan.move_count, p->plan.blocked_count, d.principal);
    return 0;
}

/* ------------------------------------------------------------------ requests that overlap */

static bool has_host(const struct lmo_drain *d, const char *name)
{
    for (uint32_t i = 0; i < d->host_count; i++) {
        if (strcmp(d->hosts[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* An open drain that has one of the hosts. *ret_same: of exactly these hosts, asked for in the same way. */
static struct drain *overlapping(const struct asking *a, bool *ret_same)
{
    const struct lmo_drain_request *q = &a->req;
    for (struct drain *dr = a->engine->drains; dr; dr = dr->hh.next) {
        unsigned common = 0;
        for (unsigned i = 0; i < q->host_count; i++) {
            common += has_host(&dr->d, q->hosts[i]);
        }
        if (common > 0 && !lmo_drain_is(dr->d.state, LMO_DRAIN_TERMINAL)) {
            *ret_same = common == q->host_count && common == dr->d.host_count && q->max_hosts == dr->d.max_hosts &&
                        q->spare_hosts == dr->d.keep_free && q->give_back == dr->d.give_back &&
                        q->rolling == dr->d.rolling && q->unmovable == dr->d.unmovable &&
                        strcmp(q->hook_url, dr->d.hook_url) == 0 && strcmp(q->hook_command, dr->d.hook_command) == 0;
            return dr;
        }
    }
    return NULL;
}

/* True: it is a dry run, and answered. Takes `result`. */
static bool would(struct asking *a, json_t *result, const char *text)
{
    struct request r = {.engine = a->engine, .ask = a->ask, .fn = a->fn, .arg = a->arg};
    return engine_would(&r, 202, result, "%s", text);
}

/* The second request gets the first one's drain. True: answered. */
static bool repeated(struct asking *a)
{
    bool same = false;
    char text[LMO_TEXT_MAX];
    struct drain *dr = a->kind == LMO_PLAN_EMPTY ? overlapping(a, &same) : NULL;
    if (!dr) {
        return false;
    }
    if (!same || dr->d.state == LMO_DRAIN_CANCELLING) {
        (void)snprintf(text, sizeof text, "drain %s (%s) has one of these hosts; wait for its end, or cancel it",
                       dr->d.id, lmo_drain_state_text(dr->d.state));
        fail(a, LMO_E_CONFLICT, "hosts", text);
        return true;
    }
    (void)snprintf(text, sizeof text, "drain %s does that already", dr->d.id);
    const struct drain_waiter who = {.writes = true, .keyed = a->keyed, .status = 202, .fn = a->fn, .arg = a->arg};
    if (a->ask.dry_run) {
        (void)would(a, engine_drain_json(a->engine, &dr->d, true), text);
    } else if (dr->stored) {
        engine_reply_drain(a->fn, a->arg, 202, a->engine, &dr->d); /* it is kept for its key by keyed.c */
    } else {
        engine_drain_wait(dr, 0, REPEAT_COMMIT_MS, &who);
    }
    asking_free(a);
    return true;
}

/* ------------------------------------------------------------------ the fleet has been looked at */

static void say_what_would_be(struct asking *a, const struct planned *p)
{
    char text[LMO_TEXT_MAX];
    (void)snprintf(text, sizeof text, "%u guests would be moved; %u could not be", p->plan.move_count,
                   p->plan.blocked_count);
    (void)would(a, engine_plan_json(&p->s, &p->plan, p->digest), text);
    asking_free(a);
}

static void on_refreshed(void *arg)
{
    struct asking *a = arg;
    struct lmo_engine *e = a->engine;
    struct planned p;
    struct lmo_err err = {0};
    const char *field = "";
    if (e->stopping || (e->stalled && !a->ask.dry_run)) {
        fail(a, LMO_E_UNAVAILABLE, "",
             e->stopping ? "the coordinator is stopping" : "the coordinator's store cannot be written now");
        return;
    }
    if (repeated(a)) {
        return;
    }
    if (plan(a, &p, &field, &err) < 0) {
        fail(a, err.code, field, err.text);
        return;
    }
    if (a->req.plan[0] && strcmp(a->req.plan, p.digest) != 0) {
        fail(a, LMO_E_CONFLICT, "plan",
             "the fleet has changed since that plan was made; ask for a new one with dry_run");
    } else if (a->req.spare_hosts > 0 && !p.plan.spare_kept) {
        fail(a, LMO_E_REFUSED, "keep_free", p.plan.text);
    } else if (HASH_COUNT(e->drains) >= LMO_DRAINS_MAX) {
        fail(a, LMO_E_LIMIT, "", "too many drains are open");
    } else if (a->ask.dry_run) {
        say_what_would_be(a, &p);
    } else if (make(a, &p, &err) < 0) {
        fail(a, err.code, "", err.text);
    } else {
        asking_free(a); /* answered after the commit */
    }
    planned_done(&p);
}

/* ------------------------------------------------------------------ explain */

static int parts_json(json_t *to, const struct lmo_verdict *v)
{
    json_t *parts = json_object();
    int r = 0;
    for (int i = 0; i < LMO_SCORE_PARTS; i++) {
        r |= lmo_json_put_u64(parts, lmo_score_part_text(i), v->parts[i]);
    }
    return r | lmo_json_put(to, "parts", parts);
}

static json_t *verdict_json(const struct snapshot *s, const struct lmo_verdict *v)
{
    bool takes = v->why == LMO_NOT_REJECTED;
    json_t *o = json_object();
    int r = lmo_json_put_str(o, "host", s->hosts[v->host]->row.name);
    r |= lmo_json_put_bool(o, "possible", takes);
    r |= lmo_json_put(o, "why_not", takes ? json_null() : json_string(lmo_not_text((int)v->why)));
    r |= lmo_json_put_str(o, "text", v->text);
    r |= lmo_json_put(o, "score", takes ? json_integer((json_int_t)v->score) : json_null());
    r |= takes ? parts_json(o, v) : lmo_json_put(o, "parts", json_null());
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *explain_json(const struct snapshot *s, const struct guest *g, const struct lmo_verdict *verdicts)
{
    char text[LMO_TEXT_MAX] = "";
    enum lmo_not why = LMO_NOT_REJECTED;
    enum lmo_way way = lmo_place_way(&s->fleet, g->index, &why, text, sizeof text);
    json_t *o = json_object(), *hosts = json_array();
    int r = lmo_json_put_str(o, "vm", g->uuid);
    r |= lmo_json_put_str(o, "name", g->name);
    r |= lmo_json_put_str(o, "host", g->host->row.name);
    r |= lmo_json_put_str(o, "way", lmo_way_text((int)way));
    r |= lmo_json_put(o, "why_not", way == LMO_WAY_NONE ? json_string(lmo_not_text((int)why)) : json_null());
    r |= lmo_json_put(o, "text", way == LMO_WAY_NONE ? json_string(text) : json_null());
    for (uint32_t i = 0; i < s->fleet.host_count; i++) {
        r |= lmo_json_add(hosts, verdict_json(s, &verdicts[i]));
    }
    r |= lmo_json_put(o, "hosts", hosts);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void on_refreshed_explain(void *arg)
{
    struct asking *a = arg;
    struct snapshot s;
    struct lmo_err err = {0};
    bool many = false;
    char text[LMO_TEXT_MAX];
    if (a->engine->stopping) {
        fail(a, LMO_E_UNAVAILABLE, "", "the coordinator is stopping");
        return;
    }
    const struct guest *g = engine_guest(a->engine, a->vm, &many);
    if (!g || many) {
        (void)snprintf(text, sizeof text,
                       many ? "guest %s: several have that name; use the UUID" : "guest %s: no host shows it", a->vm);
        fail(a, many ? LMO_E_CONFLICT : LMO_E_NOT_FOUND, "vm", text);
        return;
    }
    if (engine_snapshot(a->engine, LMO_UNMOVABLE_FAIL, &s, &err) < 0) {
        fail(a, err.code, "", err.text);
        return;
    }
    struct lmo_verdict *verdicts = calloc(s.fleet.host_count + 1U, sizeof *verdicts);
    const struct lmo_place_options o = {.spare_hosts = a->req.spare_hosts};
    if (!verdicts || engine_snapshot_place(&s, &o, &err) < 0) {
        fail(a, LMO_E_NO_MEMORY, "", "no memory to explain it");
    } else {
        lmo_place_explain(s.place, g->index, verdicts);
        engine_reply_ok(a->fn, a->arg, 200, explain_json(&s, g, verdicts), "");
        asking_free(a);
    }
    free(verdicts);
    engine_snapshot_done(&s);
}

/* ------------------------------------------------------------------ from any thread to the loop */

/* The hosts that the labels choose. */
static int choose(struct asking *a, struct lmo_err *err)
{
    struct lmo_drain_request *q = &a->req;
    char labels[LMO_LABELS_TEXT_MAX];
    int r = engine_labels_parse(q->labels, labels, "all_matching", err);
    if (r < 0) {
        return r;
    }
    q->hosts = calloc(HASH_COUNT(a->engine->hosts) + 1U, sizeof *q->hosts);
    if (!q->hosts) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the hosts");
    }
    for (const struct host *h = a->engine->hosts; h; h = h->hh.next) {
        bool all = true;
        for (const char *p = labels; *p && all;) {
            char label[LMO_LABEL_MAX];
            size_t n = strcspn(p, " ");
            (void)snprintf(label, sizeof label, "%.*s", (int)n, p);
            all = engine_label_in(h->mark.labels, label);
            p += n + (p[n] == ' ');
        }
        if (all) {
            LMO_COPY(q->hosts[q->host_count++], h->row.name);
        }
    }
    return q->host_count > 0 ? 0 : lmo_fail(err, LMO_E_NOT_FOUND, "no host has the labels '%.200s'", labels);
}

static int check(struct asking *a, const char **field, struct lmo_err *err)
{
    struct lmo_drain_request *q = &a->req;
    *field = "hosts";
    if (q->labels[0]) {
        *field = "all_matching";
        int r = choose(a, err);
        if (r < 0) {
            return r;
        }
    }
    if (q->host_count == 0 || q->host_count > LMO_DRAIN_HOSTS_MAX) {
        return lmo_fail(err, LMO_E_INVALID, "a drain has 1 to %d hosts", LMO_DRAIN_HOSTS_MAX);
    }
    for (unsigned i = 0; i < q->host_count; i++) {
        const struct host *h = engine_host(a->engine, q->hosts[i]);
        if (!h) {
            return lmo_fail(err, LMO_E_NOT_FOUND, "host %s is not registered", q->hosts[i]);
        }
        if (h->facts.host[0] && !h->facts.hypervisor[0]) {
            return lmo_fail(err, LMO_E_INVALID, "host %s runs no hypervisor: there is nothing to drain", q->hosts[i]);
        }
    }
    const struct lmo_hook hook = {.url = q->hook_url, .command = q->hook_command};
    *field = q->hook_url[0] ? "hook.url" : "hook.command";
    if (q->hook_url[0] || q->hook_command[0]) {
        return a->engine->hooks ? a->engine->hooks->check(a->engine->hooks->arg, &hook, err)
                                : lmo_fail(err, LMO_E_INVALID, "this coordinator calls no hooks");
    }
    return 0;
}

static void run(struct request *r)
{
    struct asking *a = r->more;
    struct lmo_err err = {0};
    const char *field = "";
    r->more = NULL; /* it goes on when hosts have answered */
    a->engine = r->engine;
    a->ask = r->ask;
    a->keyed = r->keyed;
    a->fn = r->fn;
    a->arg = r->arg;
    if (a->kind == LMO_PLAN_EMPTY && !a->explain) {
        if (check(a, &field, &err) < 0) {
            fail(a, err.code, field, err.text);
            return;
        }
        a->req.rolling = a->req.rolling || a->req.give_back || a->req.hook_url[0] || a->req.hook_command[0] ||
                         (a->req.max_hosts > 0 && a->req.max_hosts < a->req.host_count);
        if (repeated(a)) {
            return;
        }
    }
    engine_fleet_refresh(a->engine, a->explain ? on_refreshed_explain : on_refreshed, a);
}

/* Takes what `template` owns. */
static int post(struct lmo_engine *e, const struct asking *template, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(run, fn, arg, "");
    struct asking *a = malloc(sizeof *a);
    if (!a) {
        free(template->req.hosts);
        return LMO_E_NO_MEMORY;
    }
    *a = *template;
    r.more = a;
    r.more_free = asking_free;
    r.harmless = a->explain;
    return engine_post(e, &r);
}

int lmo_engine_drain(struct lmo_engine *e, struct lmo_drain_request *req, lmo_engine_reply_fn *fn, void *arg)
{
    const struct asking a = {.req = *req, .kind = LMO_PLAN_EMPTY};
    req->hosts = NULL;
    return post(e, &a, fn, arg);
}

int lmo_engine_vm_explain(struct lmo_engine *e, const char *vm, uint32_t spare_hosts, lmo_engine_reply_fn *fn,
                          void *arg)
{
    struct asking a = {.explain = true, .req = {.spare_hosts = spare_hosts}};
    LMO_COPY(a.vm, vm);
    return post(e, &a, fn, arg);
}

int lmo_engine_rebalance(struct lmo_engine *e, bool pack, uint32_t spare_hosts, const char *principal,
                         lmo_engine_reply_fn *fn, void *arg)
{
    struct asking a = {.kind = pack ? LMO_PLAN_PACK : LMO_PLAN_SPREAD, .req = {.spare_hosts = spare_hosts}};
    LMO_COPY(a.req.principal, principal);
    return post(e, &a, fn, arg);
}
