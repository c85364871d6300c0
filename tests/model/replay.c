/* replay.c - walks the model's trails with the real machines: workers/logic/source.c, workers/logic/destination.c and
 * lmo/core. `model-replay KEYS < TRAILS`
 *
 * A trail is a line "TRAIL n" and the lines "LMO machine event argument stage actions" that the verifier printed on the
 * way (codes.h has the numbers). For each line, the real machine gets the event that the label stands for; afterwards
 * its stage and everything that it asks for must be what the label says. Each machine keeps its own state all along a
 * trail, also what the model knows nothing of; a crash loads what it had last asked to be journaled. Then every line of
 * KEYS (the verifier's list of all transitions that exist) must have been walked. "-" for KEYS: only walk.
 *
 * The model has no time: before a timer's step, the stamps are put so that exactly what the label says is due. */
#include "tests/model/replay.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES 256
#define KEYS_MAX       100000U

struct replay_position replay_at;

void replay_mismatch(const char *fmt, ...)
{
    const struct replay_label *l = &replay_at.label;
    va_list ap;
    printf("trail %u, step %u, LMO %c %d %d %d %d: ", replay_at.trail, replay_at.step, l->machine, l->event,
           l->argument, l->stage, l->actions);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    replay_at.trails_failed += !replay_at.failed;
    replay_at.failed = true;
}

int replay_refusal(int code)
{
    switch (code) {
    case 0: return NO_REFUSAL;
    case LMO_E_BUSY: return E_BUSY;
    case LMO_E_CONFLICT: return E_CONFLICT;
    case LMO_E_STALE_EPOCH: return E_STALE;
    case LMO_E_GONE: return E_GONE;
    default: return 7;
    }
}

const enum lmo_freeze_answer replay_answers[4] = {
    [A_UNKNOWN] = LMO_FREEZE_UNKNOWN,
    [A_FROZEN] = LMO_FREEZE_FROZEN,
    [A_GONE] = LMO_FREEZE_GONE,
    [A_RUNNING] = LMO_FREEZE_RUNNING,
};

int replay_answer_code(enum lmo_freeze_answer a)
{
    for (int i = 0; i < (int)COUNT(replay_answers); i++) {
        if (replay_answers[i] == a) {
            return i;
        }
    }
    return -1;
}

/* ------------------------------------------------------------------ coverage */

struct key {
    int machine, event, argument, before, after, actions;
    bool walked;
};

static struct key *keys;
static unsigned key_count;

static int compare(const void *pa, const void *pb)
{
    const struct key *a = pa, *b = pb;
    const int d[] = {a->machine - b->machine, a->event - b->event, a->argument - b->argument,
                     a->before - b->before,   a->after - b->after, a->actions - b->actions};
    for (unsigned i = 0; i < COUNT(d); i++) {
        if (d[i] != 0) {
            return d[i];
        }
    }
    return 0;
}

static void read_keys(const char *path)
{
    FILE *f = fopen(path, "r");
    char line[LINE_MAX_BYTES];
    keys = calloc(KEYS_MAX, sizeof *keys);
    if (!f || !keys) {
        fprintf(stderr, "model-replay: %s: %s\n", path, strerror(errno));
        exit(2);
    }
    while (fgets(line, sizeof line, f)) {
        struct key k = {0};
        if (key_count < KEYS_MAX && sscanf(line, "KEY %d %d %d %d %d %d", &k.machine, &k.event, &k.argument, &k.before,
                                           &k.after, &k.actions) == 6) {
            keys[key_count++] = k;
        }
    }
    (void)fclose(f);
    qsort(keys, key_count, sizeof *keys, compare);
}

static void walked(int machine, int before)
{
    const struct replay_label *l = &replay_at.label;
    struct key k = {machine, l->event, l->argument, before, l->stage, l->actions, false};
    struct key *found = key_count > 0 ? bsearch(&k, keys, key_count, sizeof *keys, compare) : NULL;
    if (found) {
        found->walked = true;
    } else if (keys) {
        replay_mismatch("the verifier knows no such transition from stage %d", before);
    }
}

/* ------------------------------------------------------------------ walking */

static struct {
    int source, destination, core;
} stage; /* as the labels said last */

static void begin_trail(unsigned n)
{
    replay_at.trail = n;
    replay_at.step = 0;
    replay_at.failed = false;
    stage.source = S_IDLE;
    stage.destination = D_IDLE;
    stage.core = C_PRECOPY;
    replay_workers_reset();
    replay_core_reset();
}

static void walk(void)
{
    const struct replay_label *l = &replay_at.label;
    int *at = l->machine == 'S' ? &stage.source : l->machine == 'D' ? &stage.destination : &stage.core;
    replay_at.step++;
    switch (l->machine) {
    case 'S':
        walked(1, *at);
        replay_source();
        break;
    case 'D':
        walked(2, *at);
        replay_destination();
        break;
    case 'C':
        walked(3, *at);
        replay_core();
        break;
    case 'W': walked(4, 0); return;
    default: replay_mismatch("no such machine"); return;
    }
    *at = l->stage;
}

int main(int argc, char **argv)
{
    char line[LINE_MAX_BYTES];
    unsigned trails = 0, missing = 0;
    unsigned long steps = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: model-replay KEYS < TRAILS\n");
        return 2;
    }
    bool keys_wanted = strcmp(argv[1], "-") != 0;
    if (keys_wanted) {
        read_keys(argv[1]);
    }
    while (fgets(line, sizeof line, stdin)) {
        unsigned n;
        struct replay_label *l = &replay_at.label;
        const char *label = strstr(line, "LMO ");
        if (sscanf(line, "TRAIL %u", &n) == 1) {
            begin_trail(n);
            trails++;
        } else if (label && trails > 0 && !replay_at.failed &&
                   sscanf(label, "LMO %c %d %d %d %d", &l->machine, &l->event, &l->argument, &l->stage, &l->actions) ==
                       5) {
            walk();
            steps++;
        }
    }
    for (unsigned i = 0; i < key_count; i++) {
        if (!keys[i].walked) {
            printf("not walked: machine %d event %d %d, stage %d to %d, actions %d\n", keys[i].machine, keys[i].event,
                   keys[i].argument, keys[i].before, keys[i].after, keys[i].actions);
            missing++;
        }
    }
    printf("replay: %u trails, %lu steps; %u of %u transitions of the model walked; %u trails differ\n", trails, steps,
           key_count - missing, key_count, replay_at.trails_failed);
    free(keys);
    return (keys_wanted && key_count == 0) || trails == 0 || missing > 0 || replay_at.trails_failed > 0;
}
