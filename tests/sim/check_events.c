/* check_events.c - at every start of a coordinator: does the event log tell exactly what the journals say happened?
 *
 * Both were written by the same transactions, but by different code: the journal's line for a phase comes from the core, the
 * event from the engine. Whatever the crash before did, each phase that a journal has entered is in the log once, in that
 * order, and the log's numbers have no holes. */
#include "world.h"

#include "core/phase.h"
#include "engine/ports.h"

#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX 4096 /* more than any plan makes */

static struct told {
    char migration[LMO_ID_MAX];
    char phase[32]; /* "accepted" for the first */
    bool matched;
} told[EVENTS_MAX];
static unsigned told_count;
static uint64_t last_seq;
static char problem[256];

static int remember(void *arg, const struct lmo_event_row *row)
{
    (void)arg;
    if (last_seq && row->seq != last_seq + 1) {
        snprintf(problem, sizeof problem, "event %llu follows %llu", (unsigned long long)row->seq,
                 (unsigned long long)last_seq);
    }
    last_seq = row->seq;
    if (strncmp(row->type, "migration.", 10) != 0 || strcmp(row->type, "migration.notice") == 0 ||
        told_count == EVENTS_MAX) {
        return 0;
    }
    struct told *t = &told[told_count++];
    const char *phase = strstr(row->data, "\"phase\":\"");
    *t = (struct told){.matched = false};
    snprintf(t->migration, sizeof t->migration, "%s", row->migration);
    if (strcmp(row->type, "migration.accepted") == 0) {
        strcpy(t->phase, "accepted");
    } else if (phase) {
        snprintf(t->phase, sizeof t->phase, "%.*s", (int)strcspn(phase + 9, "\""), phase + 9);
    }
    return 0;
}

/* The next event of this migration must be this one. */
static int compare(void *arg, uint64_t n, const struct lmo_journal_line *l)
{
    const char *id = arg;
    (void)n;
    bool first = strcmp(l->what, "accepted") == 0;
    if (!first && lmo_phase_from_text(l->what) == LMO_PHASE_COUNT) {
        return 0;
    }
    for (unsigned i = 0; i < told_count; i++) {
        struct told *t = &told[i];
        if (t->matched || strcmp(t->migration, id) != 0) {
            continue;
        }
        t->matched = true;
        if (strcmp(t->phase, l->what) != 0) {
            snprintf(problem, sizeof problem, "migration %s: the journal says %s, the event log %s", id, l->what,
                     t->phase);
        }
        return 0;
    }
    snprintf(problem, sizeof problem, "migration %s: the journal says %s, the event log nothing", id, l->what);
    return 0;
}

static int check_one(void *arg, const char *id, const char *summary)
{
    struct lmo_store *store = arg;
    (void)summary;
    return store->ops->journal(store, id, 0, 0, compare, (void *)(uintptr_t)id, NULL);
}

void check_events(struct lmo_store *store)
{
    const struct lmo_migration_filter any = {0};
    struct lmo_err err = {0};
    told_count = 0;
    last_seq = 0;
    problem[0] = '\0';
    if (store->events->list(store, 0, EVENTS_MAX, remember, NULL, &err) < 0 ||
        store->ops->list(store, &any, EVENTS_MAX, check_one, store, &err) < 0) {
        return; /* a disk that fails: the coordinator will find out by itself */
    }
    for (unsigned i = 0; i < told_count && !problem[0]; i++) {
        if (!told[i].matched) {
            snprintf(problem, sizeof problem, "migration %s: the event log says %s once more than the journal",
                     told[i].migration, told[i].phase);
        }
    }
    if (problem[0]) {
        sim_violation("%s", problem);
    }
}
