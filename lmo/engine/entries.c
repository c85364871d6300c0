/* entries.c - open migrations in memory: by id, by guest, packed and unpacked.
 *
 * A record is unpacked ("hot") from the first step of a batch until the batch is committed and carried out, because the
 * step, the store and the effects all read it. At most LMO_BATCH_MAX lie so between turns of the loop: with more (while
 * the store cannot commit, or right after a start) a step unpacks, steps and packs again. */
#include "engine/internal.h"

#include "base/assert.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>


int engine_entries_init(struct lmo_engine *e, struct lmo_err *err)
{
    e->spare = calloc(1, sizeof *e->spare);
    e->view = calloc(1, sizeof *e->view);
    if (!e->spare || !e->view) {
        free(e->spare);
        free(e->view);
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the engine");
    }
    return 0;
}

void engine_entries_done(struct lmo_engine *e)
{
    while (e->buffer_count > 0) {
        free(e->buffers[--e->buffer_count]);
    }
    free(e->spare);
    free(e->view);
}

struct entry *engine_entry(struct lmo_engine *e, const char *id)
{
    struct entry *entry;
    HASH_FIND_STR(e->entries, id, entry);
    return entry;
}

struct entry *engine_entry_of_vm(struct lmo_engine *e, const char *uuid)
{
    struct entry *entry;
    HASH_FIND(hh_vm, e->by_vm, uuid, strlen(uuid), entry);
    return entry;
}

/* What is looked for among all entries follows the record. */
static void show(struct entry *entry, const struct lmo_migration *m)
{
    entry->phase = m->phase;
    entry->shut_off = lmo_migration_shut_off(m);
    entry->version = m->version;
}

struct entry *engine_entry_new(struct lmo_engine *e, const struct lmo_migration *m, uint64_t stored_version)
{
    struct entry *entry = calloc(1, sizeof *entry);
    if (!entry) {
        return NULL;
    }
    entry->packed = lmo_record_pack(m, NULL);
    if (!entry->packed) {
        free(entry);
        return NULL;
    }
    entry->engine = e;
    entry->stored_version = stored_version;
    LMO_COPY(entry->id, m->id);
    LMO_COPY(entry->vm, m->vm.uuid);
    LMO_COPY(entry->source, m->source);
    LMO_COPY(entry->destination, m->destination);
    show(entry, m);
    entry->item = LMO_NONE;
    HASH_ADD_STR(e->entries, id, entry);
    HASH_ADD(hh_vm, e->by_vm, vm, strlen(entry->vm), entry);
    struct lmo_err err = {0};
    if (engine_admission_entry_add(entry, &err) < 0) {
        engine_entry_free(entry);
        return NULL;
    }
    return entry;
}

static void give_back(struct lmo_engine *e, struct lmo_migration *buffer)
{
    e->hot_count--;
    if (e->buffer_count < LMO_BATCH_MAX) {
        e->buffers[e->buffer_count++] = buffer;
    } else {
        free(buffer);
    }
}

void engine_entry_free(struct entry *entry)
{
    struct lmo_engine *e = entry->engine;
    lmo_loop_cancel(e->loop, &entry->timer);
    engine_admission_entry_remove(entry);
    HASH_DEL(e->entries, entry);
    HASH_DELETE(hh_vm, e->by_vm, entry);
    if (entry->hot) {
        give_back(e, entry->hot);
    }
    if (e->viewed == entry) {
        e->viewed = NULL;
    }
    free(entry->packed);
    free(entry->journal);
    free(entry->xml);
    free(entry->request);
    engine_shown_free(&entry->row);
    free(entry);
}

const struct lmo_migration *engine_record(const struct entry *entry)
{
    if (entry->hot) {
        return entry->hot;
    }
    struct lmo_engine *e = entry->engine;
    if (e->viewed != entry) {
        lmo_record_unpack(entry->packed, e->view);
        e->viewed = entry;
    }
    return e->view;
}

void engine_heat(struct entry *entry, bool anyway)
{
    struct lmo_engine *e = entry->engine;
    if (entry->hot || (e->hot_count >= LMO_BATCH_MAX && !anyway)) {
        return;
    }
    struct lmo_migration *buffer = e->buffer_count ? e->buffers[--e->buffer_count] : calloc(1, sizeof *buffer);
    if (!buffer) {
        lmo_assert(!anyway); /* a commit without its records is none; a restart starts from the store */
        return;
    }
    lmo_record_unpack(entry->packed, buffer);
    entry->hot = buffer;
    e->hot_count++;
}

static void pack(struct entry *entry, const struct lmo_migration *m)
{
    struct lmo_packed *packed = lmo_record_pack(m, entry->packed);
    lmo_assert(packed); /* a step that was taken cannot be taken back; a restart starts from the store */
    entry->packed = packed;
}

void engine_cool(struct entry *entry)
{
    struct lmo_engine *e = entry->engine;
    if (entry->hot) {
        pack(entry, entry->hot);
        give_back(e, entry->hot);
        entry->hot = NULL;
        e->viewed = e->viewed == entry ? NULL : e->viewed; /* from before it was hot */
    }
}

void engine_take_spare(struct entry *entry)
{
    struct lmo_engine *e = entry->engine;
    struct lmo_migration *next = e->spare;
    show(entry, next);
    if (entry->hot) {
        e->spare = entry->hot;
        entry->hot = next;
    } else {
        pack(entry, next);
        e->spare = e->view;
        e->view = next;
        e->viewed = entry;
    }
}
