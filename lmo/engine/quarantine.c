/* quarantine.c - migrations that are set aside, so that one of them cannot hold up all others: stored records that
 * cannot be read (the store says which), and records that the store will never take. Nothing is ever done about one;
 * its guest takes no other migration; `lmo doctor` shows it. */
#include "base/log.h"
#include "base/str.h"
#include "engine/drains_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int remember(void *arg, const struct lmo_quarantine_row *row)
{
    struct lmo_engine *e = arg;
    struct quarantined *q = calloc(1, sizeof *q);
    if (!q) {
        return LMO_E_NO_MEMORY;
    }
    q->row = *row;
    q->next = e->quarantine;
    e->quarantine = q;
    return 0;
}

int engine_quarantine_load(struct lmo_engine *e, struct lmo_err *err)
{
    return e->store->ops->quarantine_list ? e->store->ops->quarantine_list(e->store, remember, e, err) : 0;
}

const struct lmo_quarantine_row *engine_quarantined(const struct lmo_engine *e, const char *uuid)
{
    for (const struct quarantined *q = e->quarantine; q; q = q->next) {
        if (strcmp(q->row.vm_uuid, uuid) == 0) {
            return &q->row;
        }
    }
    return NULL;
}

void engine_quarantine_free(struct lmo_engine *e)
{
    while (e->quarantine) {
        struct quarantined *q = e->quarantine;
        e->quarantine = q->next;
        free(q);
    }
}

bool engine_is_hopeless(int code)
{
    return code == LMO_E_INTERNAL || code == LMO_E_TOO_LARGE || code == LMO_E_CORRUPT || code == LMO_E_INVALID;
}

void engine_set_aside(struct entry *entry, const struct lmo_err *why)
{
    struct lmo_engine *e = entry->engine;
    struct lmo_quarantine_row row = {.at_ms = engine_now_ms(e)};
    struct lmo_err err = {0};
    LMO_COPY(row.migration, entry->id);
    LMO_COPY(row.vm_uuid, entry->vm);
    LMO_COPY(row.why, why->text);
    lmo_log(LMO_LOG_ERROR, "migration cannot be stored: set aside, nothing is done about it",
            "migration=%s vm=%s code=%s why=%s", row.migration, row.vm_uuid, lmo_err_name(why->code), why->text);
    if (entry->stored_version > 0) { /* else nothing of it was ever there: the request fails, and that is all */
        if (remember(e, &row) < 0 ||
            (e->store->ops->quarantine && e->store->ops->quarantine(e->store, &row, &err) < 0)) {
            lmo_log(LMO_LOG_ERROR, "cannot be noted as set aside; the next start finds out again",
                    "migration=%s why=%s", row.migration, err.text);
        }
    }
    if (entry->request) {
        engine_created(entry, why->code, why->text);
    }
    engine_drains_child_lost(entry, why);
    engine_fail_waiters(entry, why->code, "the migration cannot be stored and was set aside: see lmo doctor");
}
