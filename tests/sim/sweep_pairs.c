/* sweep_pairs.c - all pairs of faults from a switch-over to the end of its migration.
 *
 * What two runs have in common is run once. The trunk is the scenario without a fault; at each point and for each fate a
 * branch is forked from it, which strikes and goes on; at each point that a branch comes to, a leaf is forked from that
 * for each fate, strikes, and runs to its end. The simulator is one thread and depends on nothing outside (K1), so a
 * fork is the run over again. A parent waits for its child: a job has one real process that runs.
 *
 * Crashes at equal moments of one run leave the same behind (sim_moment has the argument), so of those only the first is
 * run: as a leaf, or as a branch with all that comes after it. That is checked, too: every branch and every so many a
 * leaf that was left out is run nevertheless, and all that happens after the crash (every event with its time, every
 * message, every answer) must be what happened after the other: a hash of it is compared.
 *
 * Points count while the window is open: from a switch-over (of a guest that is shut off: its release) until the
 * coordinator has said of every migration that had begun its pre-copy that it has ended. */
#include "sim_private.h"
#include "sweep_private.h"
#include "world.h"

#include "base/assert.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRSTS_MAX  4096 /* of one scenario */
#define SECONDS_MAX 8192 /* crashes in one branch */
#define NEAR        64   /* equal moments are not further apart */
#define CHECK_EVERY 32
#define NONE        UINT32_MAX
#define OPEN_MAX    8
#define ROOM_FOR_ID 40

/* One first fault. All jobs find the same ones in the same order. */
struct first {
    struct strike strike;
    struct sim_moment moment; /* of the crash */
    bool has_moment, done;
    uint32_t same_as; /* an earlier one; NONE: it is run */
    uint64_t pairs, hash;
};
struct crash {
    struct sim_moment moment;
    uint64_t hash; /* of what came after it */
    bool failed;
};
/* Of the branch that a job is on: leaves add to it. */
struct seconds {
    uint32_t count, left_out;
    struct crash crashes[SECONDS_MAX];
};
static struct shared {
    struct {
        uint32_t count;
        struct first firsts[FIRSTS_MAX];
    } of[SCENARIOS_MAX];
    struct seconds seconds[JOBS_MAX];
} * shared;

static struct {
    struct first *firsts;
    struct seconds *seconds;
    bool scouting, checking; /* find out moments; a first fault that is the same as another */
    uint32_t count, current; /* firsts come upon; the one that this branch is */
    uint32_t against, crash; /* leaf: has to be the same as this one; is this one */
    bool first_crashed, second_crashed;
    uint64_t points, pairs, *task;
    double began;
} t;

/* ------------------------------------------------------------------ the window */

static struct {
    uint64_t closed_at; /* handovers by then */
    unsigned count;     /* migrations between pre-copy and end */
    char open[OPEN_MAX][ROOM_FOR_ID];
} window;

static bool window_open(void)
{
    return world.handovers > window.closed_at;
}

static void hear(const char *text)
{
    static const char *const before[] = {
        "queued", "precheck", "destination_create", "volume_attach", "network_preload", "dual_ingress", NULL};
    static const char *const after[] = {"completed", "aborted", "abandoned", NULL};
    char id[ROOM_FOR_ID], phase[32];
    if (sscanf(text, "migration=%39s phase=%31s", id, phase) != 2) {
        return;
    }
    unsigned at = 0;
    while (at < window.count && strcmp(window.open[at], id) != 0) {
        at++;
    }
    bool ended = false, early = false;
    for (unsigned i = 0; before[i]; i++) {
        early |= strcmp(phase, before[i]) == 0;
    }
    for (unsigned i = 0; after[i]; i++) {
        ended |= strcmp(phase, after[i]) == 0;
    }
    if (ended && at < window.count) {
        window.count--;
        memmove(window.open[at], window.open[window.count], ROOM_FOR_ID);
        window.closed_at = window.count == 0 ? world.handovers : window.closed_at;
    } else if (!ended && !early && at == window.count) {
        lmo_assert(window.count < OPEN_MAX);
        memcpy(window.open[window.count++], id, ROOM_FOR_ID);
    }
}

/* ------------------------------------------------------------------ forks */

/* True: this is the child, with one strike more. False: it has ended. */
static bool fork_for(struct strike x)
{
    lmo_assert(sweep.struck < 2);
    sweep.strikes[sweep.struck] = x;
    sweep_name_strikes(sweep.struck + 1);
    pid_t pid = fork();
    lmo_assert(pid >= 0);
    if (pid == 0) {
        sweep.struck++;
        sweep.wanted = sweep.struck;
        sim_memory_forked();
        return true;
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        lmo_assert(errno == EINTR);
    }
    if (status != 0) {
        char what[96];
        snprintf(what, sizeof what, "the simulator itself ended: %s %d", WIFSIGNALED(status) ? "signal" : "status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        sweep_note_violation(what, sweep.job->strikes);
    }
    return false;
}

static bool equal_moments(const struct sim_moment *a, const struct sim_moment *b)
{
    return a->event == b->event && a->process == b->process && (a->changes == b->changes || sweep.options->blurred);
}

/* ------------------------------------------------------------------ first faults */

static uint64_t stride(void)
{
    uint64_t longer = sweep.plan.request_count > 1 ? 4 : 1; /* twice the points, squared */
    return sweep.options->stride > 1 ? sweep.options->stride * longer : 1;
}

/* Before the sweep: which there are, and at which moment the process is gone. Of a crash after something that is known
 * only to a branch, which ends there. */
static enum sim_fate scout(struct strike x, const struct sim_process *p)
{
    lmo_assert(t.count < FIRSTS_MAX);
    t.current = t.count++;
    struct first *f = &t.firsts[t.current];
    *f = (struct first){.strike = x, .same_as = NONE};
    if (x.fate == SIM_FATE_CRASH_BEFORE) {
        f->moment = sim_moment(p);
        f->has_moment = true;
    } else if (x.fate == SIM_FATE_CRASH_AFTER && fork_for(x)) {
        return x.fate;
    }
    return SIM_FATE_NONE;
}

static void find_same(void)
{
    for (uint32_t i = 0; i < t.count; i++) {
        for (uint32_t j = i > NEAR ? i - NEAR : 0; j < i && t.firsts[i].same_as == NONE; j++) {
            const struct first *a = &t.firsts[i], *b = &t.firsts[j];
            if (a->has_moment && b->has_moment && b->same_as == NONE && equal_moments(&a->moment, &b->moment)) {
                t.firsts[i].same_as = j;
            }
        }
    }
}

static bool is_listed(const struct strike *x)
{
    const struct strike *y = &t.firsts[t.current].strike;
    return x->at.process == y->at.process && x->at.kind == y->at.kind && x->at.k == y->at.k && x->fate == y->fate;
}

static enum sim_fate branch_off(struct strike x)
{
    t.current = t.count++;
    uint64_t task = *t.task + t.current;
    if (task % sweep.options->jobs != sweep.index || task < sweep.job->next) {
        return SIM_FATE_NONE;
    }
    if (t.current >= shared->of[sweep.scenario].count || !is_listed(&x)) {
        sweep.found->missed++;
        sweep_note_violation("a point was listed and is not there any more", "");
        return SIM_FATE_NONE;
    }
    if (sweep_out_of_time(t.began)) {
        sweep.found->incomplete = true;
        return SIM_FATE_NONE;
    }
    sweep.job->next = task;
    t.checking = t.firsts[t.current].same_as != NONE;
    t.seconds->count = t.seconds->left_out = 0;
    if (fork_for(x)) {
        return x.fate;
    }
    sweep.job->next = task + 1;
    return SIM_FATE_NONE;
}

static enum sim_fate first_point(const struct point *at, const struct sim_process *p)
{
    const enum sim_fate *fates = sweep_fates_of(at->kind);
    if (t.points++ % stride() != 0) {
        return SIM_FATE_NONE;
    }
    for (unsigned n = 0; fates[n] != SIM_FATE_NONE; n++) {
        struct strike x = {*at, fates[n]};
        enum sim_fate fate = t.scouting ? scout(x, p) : branch_off(x);
        if (fate != SIM_FATE_NONE) {
            return fate; /* the child */
        }
    }
    return SIM_FATE_NONE;
}

/* ------------------------------------------------------------------ second faults */

static uint32_t crash_like(const struct sim_moment *m)
{
    for (uint32_t n = t.seconds->count, least = n > NEAR ? n - NEAR : 0; n > least; n--) {
        if (equal_moments(&t.seconds->crashes[n - 1].moment, m)) {
            return n - 1;
        }
    }
    return NONE;
}

/* A second crash like an earlier one: does it nevertheless have to be run? */
static bool is_left_out(uint32_t like)
{
    t.against = like;
    return like != NONE && t.seconds->left_out++ % CHECK_EVERY != 0;
}

static enum sim_fate second_point(const struct point *at, const struct sim_process *p)
{
    const enum sim_fate *fates = sweep_fates_of(at->kind);
    sweep.found->points[at->process][at->kind]++;
    for (unsigned n = 0; fates[n] != SIM_FATE_NONE; n++) {
        t.pairs++;
        if (sweep.options->count_only) {
            continue;
        }
        t.against = t.crash = NONE;
        if (fates[n] == SIM_FATE_CRASH_BEFORE) {
            struct sim_moment m = sim_moment(p);
            if (is_left_out(crash_like(&m))) {
                continue;
            }
        }
        if (fork_for((struct strike){*at, fates[n]})) {
            return fates[n];
        }
    }
    return SIM_FATE_NONE;
}

/* ------------------------------------------------------------------ what the simulator calls */

static enum sim_fate on_point(void *arg, struct sim_process *p, enum sim_point kind, uint64_t k)
{
    (void)arg;
    if (sweep.struck == 2 || (sweep.struck == 1 && (t.checking || t.scouting)) || !sweep_is_swept(p, kind) ||
        !window_open()) {
        return SIM_FATE_NONE;
    }
    struct point at = {(uint8_t)p->index, (uint8_t)kind, (uint32_t)k};
    return sweep.struck == 0 ? first_point(&at, p) : second_point(&at, p);
}

static void on_crash(void *arg, struct sim_process *p)
{
    (void)arg;
    struct sim_moment m = sim_moment(p);
    if (t.scouting) {
        t.firsts[t.current].moment = m;
        t.firsts[t.current].has_moment = true;
        _exit(0);
    }
    const struct strike *first = &sweep.strikes[0], *second = &sweep.strikes[1];
    if (sweep.struck == 1) {
        t.first_crashed = true;
        sim_hash_anew();
        return;
    }
    /* A crash after something comes when that is over: the first fault's may come behind the second one. */
    if (t.second_crashed || p->index != second->at.process ||
        (second->fate != SIM_FATE_CRASH_BEFORE && second->fate != SIM_FATE_CRASH_AFTER)) {
        return;
    }
    t.second_crashed = true;
    bool whose = second->fate == SIM_FATE_CRASH_BEFORE || first->fate != SIM_FATE_CRASH_AFTER || t.first_crashed ||
                 first->at.process != p->index;
    if (t.against == NONE && whose) { /* else it is not known which of the two this is: it is run for itself */
        if (second->fate == SIM_FATE_CRASH_AFTER && is_left_out(crash_like(&m))) {
            _exit(0);
        }
        if (t.against == NONE && t.seconds->count < SECONDS_MAX) {
            t.crash = t.seconds->count++;
            t.seconds->crashes[t.crash] = (struct crash){.moment = m};
        }
    }
    sim_hash_anew();
}

static void end_of_branch(const struct run_result *r)
{
    struct first *f = &t.firsts[t.current];
    f->hash = r->hash;
    f->pairs = t.pairs;
    f->done = true;
    sweep.found->checked += t.checking;
}

static void end_of_leaf(const struct run_result *r)
{
    struct crash *c = t.against != NONE ? &t.seconds->crashes[t.against]
                      : t.crash != NONE ? &t.seconds->crashes[t.crash]
                                        : NULL;
    sweep.found->pairs_run += t.against == NONE;
    sweep.found->checked += t.against != NONE;
    if (t.against != NONE && (c->hash != r->hash || c->failed != r->failed)) {
        sweep_note_violation("this crash was taken for another one, and went another way", sweep.job->strikes);
    } else if (c) {
        c->hash = r->hash;
        c->failed = r->failed;
    }
}

static void on_end(const struct run_result *r)
{
    if (sweep.struck == 0) {
        return;
    }
    if (!t.scouting) {
        sweep_name_strikes(sweep.struck);
        sweep_account(r);
        if (sweep.struck == 1) {
            end_of_branch(r);
        } else {
            end_of_leaf(r);
        }
    }
    _exit(0);
}

/* ------------------------------------------------------------------ one scenario */

static void run_trunk(struct run_result *r)
{
    memset(&window, 0, sizeof window);
    sweep.wanted = sweep.struck = 0;
    t.count = 0;
    t.points = t.pairs = 0;
    t.against = t.crash = NONE;
    t.checking = t.first_crashed = t.second_crashed = false;
    sweep_name_strikes(0);
    run_plan(&sweep.plan, r);
}

void sweep_pairs(const char *name, uint64_t *task, double began)
{
    static struct run_result r;
    lmo_assert(sweep_plan(name, &sweep.plan) == 0);
    t.firsts = shared->of[sweep.scenario].firsts;
    t.seconds = &shared->seconds[sweep.index];
    t.task = task;
    t.began = began;
    run_set_hook(on_point, NULL);
    run_set_on_end(on_end);
    sim_set_on_crash(on_crash, NULL);
    sim_set_on_log(hear);
    t.scouting = true;
    run_trunk(&r);
    t.scouting = false;
    find_same();
    uint32_t listed = shared->of[sweep.scenario].count = t.count;
    sweep.found->first_points += sweep.index == 0 ? (t.points + stride() - 1) / stride() : 0;
    run_trunk(&r);
    if (t.count != listed) {
        sweep.found->missed++;
        sweep_note_violation("a point was listed and is not there any more", "");
    }
    sweep_account(&r);
    *task += listed;
    sim_set_on_log(NULL);
    sim_set_on_crash(NULL, NULL);
    run_set_on_end(NULL);
    run_set_hook(NULL, NULL);
}

void sweep_pairs_init(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    lmo_assert(shared != MAP_FAILED);
}

void sweep_pairs_sum(unsigned scenario, struct findings *sum)
{
    for (uint32_t i = 0; i < shared->of[scenario].count; i++) {
        const struct first *f = &shared->of[scenario].firsts[i];
        const struct first *g = f->same_as == NONE ? f : &shared->of[scenario].firsts[f->same_as];
        sum->firsts++;
        sum->firsts_same += f->same_as != NONE;
        sum->pairs += g->pairs;
        if (!f->done || !g->done) {
            sum->incomplete = true;
        } else if (f != g && f->hash != g->hash) {
            char what[160];
            snprintf(what, sizeof what, "this crash was taken for the one at %s/%u, and went another way",
                     sim_point_name((enum sim_point)g->strike.at.kind), g->strike.at.k);
            sweep.found = sum;
            sweep.strikes[0] = f->strike;
            sweep.job = sweep.jobs;
            sweep_name_strikes(1);
            sweep_note_violation(what, sweep.job->strikes);
        }
    }
}
