/* events_port.h - what a store keeps for those who follow the coordinator: the event log, webhooks, hooks of guests.
 *
 * The log's rule: an event is stored by the transaction that stores the change it tells of, so that neither is ever there
 * without the other. Events of a record ride in its commit item (ports.h); those of anything else are handed over with
 * add() right before the call that stores the change, and go with the next transaction that writes.
 *
 * A store that has none of this (lmo_store.events is NULL) is fine: then nothing is told. */
#ifndef LMO_ENGINE_EVENTS_PORT_H
#define LMO_ENGINE_EVENTS_PORT_H

#include "base/err.h"
#include "base/types.h"

#include <stdbool.h>
#include <stdint.h>

#define LMO_EVENT_TYPE_MAX     32
#define LMO_EVENT_DATA_MAX     2048 /* bytes of JSON */
#define LMO_EVENTS_PENDING_MAX 8192 /* that wait for a transaction */
/* A store that was put back from a backup leaps, whenever it is opened until it is activated, over every number that may have
 * been given since the backup: to 1,024 times the time in ms, below which all of them are unless a thousand events were written
 * in every ms; by so many at least. */
#define LMO_EVENT_LEAP (UINT64_C(1) << 20)

struct lmo_event_row {
    uint64_t seq;                  /* given by the store; from 1 on, without holes but for restores' leaps, never twice */
    int64_t at_ms;                 /* since 1970 */
    char type[LMO_EVENT_TYPE_MAX]; /* "migration.phase" */
    char migration[LMO_ID_MAX], drain[LMO_ID_MAX];
    char vm[LMO_UUID_MAX], vm_name[LMO_NAME_MAX];
    char host[LMO_NAME_MAX], to_host[LMO_NAME_MAX]; /* the host; of a migration: its source and destination */
    char data[LMO_EVENT_DATA_MAX];                  /* a JSON object */
};
struct lmo_event_range {
    uint64_t oldest; /* the first that is kept; newest + 1 if none is */
    uint64_t newest; /* the last that was ever stored; 0: none */
};

#define LMO_SECRET_MAX        96 /* "whsec_" and base64 of at most 64 bytes */
#define LMO_WEBHOOK_TYPES_MAX 256
#define LMO_DEAD_LETTERS_MAX  1000 /* per webhook; the oldest make room, and are counted */
#define LMO_EVENT_BODY_MAX    (LMO_EVENT_DATA_MAX + 256)

struct lmo_webhook_row {
    char id[LMO_ID_MAX];
    char url[LMO_URL_MAX];
    char types[LMO_WEBHOOK_TYPES_MAX];         /* as a filter says it; empty: all */
    char vm[LMO_NAME_MAX], host[LMO_NAME_MAX]; /* empty: any */
    char description[LMO_TEXT_MAX];
    char secret[LMO_SECRET_MAX], old_secret[LMO_SECRET_MAX]; /* the old one signs too until old_until_ms */
    int64_t old_until_ms, created_ms;
    char created_by[LMO_NAME_MAX + 32];
    /* what webhook_progress() stores */
    bool enabled;
    char why_disabled[LMO_TEXT_MAX];
    uint64_t cursor;
    int64_t failing_since_ms; /* 0: the last attempt succeeded, or there was none */
    uint64_t failures;        /* in a row */
    char last_error[LMO_TEXT_MAX];
    uint64_t delivered,
        dropped; /* dropped: dead letters that made room, and events that were gone before it came to them */
};
struct lmo_dead_letter {
    char webhook[LMO_ID_MAX];
    uint64_t seq;
    int64_t at_ms;
    char type[LMO_EVENT_TYPE_MAX];
    char body[LMO_EVENT_BODY_MAX];
    unsigned attempts;
    char last_error[LMO_TEXT_MAX];
    bool wanted;
};
struct lmo_vm_hook_row {
    char vm[LMO_UUID_MAX];
    char url[LMO_URL_MAX];
    uint32_t deadline_ms;
    char on_no_answer[16]; /* a word of core/notice.h */
    char secret[LMO_SECRET_MAX], old_secret[LMO_SECRET_MAX];
    int64_t old_until_ms, created_ms;
    char created_by[LMO_NAME_MAX + 32];
};

struct lmo_store;
struct lmo_event_store_ops {
    /* Kept until the next transaction that writes has stored it. LIMIT: too many wait already. */
    int (*add)(struct lmo_store *s, const struct lmo_event_row *row) LMO_MUST_CHECK;
    /* Takes the one that was added last back: what it tells of did not happen. */
    void (*withdraw)(struct lmo_store *s);
    /* In order, those after `after`, at most `limit`. */
    int (*list)(struct lmo_store *s, uint64_t after, unsigned limit,
                int (*cb)(void *arg, const struct lmo_event_row *row), void *arg, struct lmo_err *err) LMO_MUST_CHECK;
    int (*range)(struct lmo_store *s, struct lmo_event_range *ret, struct lmo_err *err) LMO_MUST_CHECK;
    /* How long events are kept: whichever is reached first. 0: no limit of that kind. */
    void (*keep)(struct lmo_store *s, uint64_t count, uint64_t age_ms);

    /* Each is a transaction of its own, which what was added with add() goes with. */
    int (*webhook_put)(struct lmo_store *s, const struct lmo_webhook_row *row, struct lmo_err *err) LMO_MUST_CHECK;
    int (*webhook_progress)(struct lmo_store *s, const struct lmo_webhook_row *row, struct lmo_err *err) LMO_MUST_CHECK;
    int (*webhook_delete)(struct lmo_store *s, const char *id, struct lmo_err *err) LMO_MUST_CHECK;
    int (*webhook_list)(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_webhook_row *row), void *arg,
                        struct lmo_err *err) LMO_MUST_CHECK;
    /* Stores it, and the webhook's cursor and counts with it. *ret_dropped: how many old ones made room. */
    int (*dead_put)(struct lmo_store *s, const struct lmo_dead_letter *letter, const struct lmo_webhook_row *row,
                    unsigned *ret_dropped, struct lmo_err *err) LMO_MUST_CHECK;
    int (*dead_delete)(struct lmo_store *s, const char *webhook, uint64_t seq, struct lmo_err *err) LMO_MUST_CHECK;
    /* To be sent once more (or not any more); seq 0: all of the webhook's. */
    int (*dead_want)(struct lmo_store *s, const char *webhook, uint64_t seq, bool wanted, uint64_t *ret_count,
                     struct lmo_err *err) LMO_MUST_CHECK;
    int (*dead_list)(struct lmo_store *s, const char *webhook, bool only_wanted, uint64_t after, unsigned limit,
                     int (*cb)(void *arg, const struct lmo_dead_letter *letter), void *arg,
                     struct lmo_err *err) LMO_MUST_CHECK;
    int (*vm_hook_put)(struct lmo_store *s, const struct lmo_vm_hook_row *row, struct lmo_err *err) LMO_MUST_CHECK;
    int (*vm_hook_delete)(struct lmo_store *s, const char *vm, struct lmo_err *err) LMO_MUST_CHECK;
    /* NOT_FOUND: the guest has none. */
    int (*vm_hook_get)(struct lmo_store *s, const char *vm, struct lmo_vm_hook_row *ret,
                       struct lmo_err *err) LMO_MUST_CHECK;
};

#endif
