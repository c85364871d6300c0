/* volume_nbd.h - private to the nbd volume driver: its durable table and its commands to the service.
 *
 * volume_nbd_table.c    names, and one JSON file per volume: what we promised, written before it is done
 * volume_nbd_service.c  qemu-storage-daemon as seen through QMP: nodes and exports, added, withdrawn, looked at
 * volume_nbd_slots.c    one slot per volume: serialisation, and reconciliation after a restart of the service
 * volume_nbd.c          the driver's functions: in which order table and service are changed
 *
 * docs/nbd.md explains the mechanism, docs/adr/0009-nbd-fence.md why the fence may be believed. */
#ifndef LMO_WORKERS_VOLUME_NBD_H
#define LMO_WORKERS_VOLUME_NBD_H

#include "base/err.h"
#include "base/types.h"
#include "workers/drivers/driver.h"
#include "workers/drivers/qmp.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define LMO_NBD_VOLUME_MAX  49 /* 48 characters and the terminator */
#define LMO_NBD_NODE_MAX    32 /* QEMU's limit on a node's name, with the terminator */
#define LMO_NBD_ID_MAX      (LMO_EXPORT_MAX + 4)
#define LMO_NBD_EXPORTS_MAX 32 /* remembered per volume; the oldest fenced ones are folded into floor_epoch */
#define LMO_NBD_VOLUMES_MAX 4096

enum lmo_nbd_state {
    LMO_NBD_ATTACHED, /* offered to its host, now and after every restart of the service */
    LMO_NBD_FENCED,   /* never offered again */
    LMO_NBD_DETACHED, /* being withdrawn; forgotten once the service is seen not to have it */
};

struct lmo_nbd_export {
    char host[LMO_NAME_MAX];
    uint64_t epoch;
    enum lmo_nbd_state state;
};

/* One volume as the table holds it: plain data, copied before a change and put in place after it is durable. */
struct lmo_nbd_volume {
    char name[LMO_NBD_VOLUME_MAX];
    char path[LMO_PATH_MAX];
    char format[16];
    bool retired;         /* being forgotten: nothing of it is offered any more */
    uint64_t high_epoch;  /* highest epoch it was ever offered under; lower ones are refused */
    uint64_t floor_epoch; /* exports up to this epoch that are not listed below are fenced */
    unsigned export_count;
    struct lmo_nbd_export exports[LMO_NBD_EXPORTS_MAX];
};

/* Names. The export a guest connects to is "VOLUME.HOST.eEPOCH"; its id in QMP is the same, with "x.." before it if it
 * does not begin with a letter, as an id must (no export name begins so: a host does not begin with a dot). */
bool lmo_nbd_volume_valid(const char *volume);
bool lmo_nbd_host_valid(const char *host);
void lmo_nbd_export_name(char ret[LMO_EXPORT_MAX], const char *volume, const char *host, uint64_t epoch);
void lmo_nbd_export_id(char ret[LMO_NBD_ID_MAX], const char *export_name);
/* The export's name in an id; not necessarily one of ours. */
const char *lmo_nbd_export_of_id(const char *id);
/* The inverse of lmo_nbd_export_name; false if `name` is not exactly what it would have made. */
bool lmo_nbd_export_parse(const char *name, char ret_volume[LMO_NBD_VOLUME_MAX], char ret_host[LMO_NAME_MAX],
                          uint64_t *ret_epoch);
void lmo_nbd_node_name(char ret[LMO_NBD_NODE_MAX], const char *volume);

/* Table. NULL if the volume has no such export. */
struct lmo_nbd_export *lmo_nbd_find(struct lmo_nbd_volume *v, const char *host, uint64_t epoch);
/* Adds or changes an export; LIMIT if there is no room and nothing can be folded into the floor. */
int lmo_nbd_put(struct lmo_nbd_volume *v, const char *host, uint64_t epoch, enum lmo_nbd_state state,
                struct lmo_err *err) LMO_MUST_CHECK;
void lmo_nbd_drop(struct lmo_nbd_volume *v, const char *host, uint64_t epoch);
/* May this export be offered? The one place that answers it. */
bool lmo_nbd_may_offer(const struct lmo_nbd_volume *v, const char *host, uint64_t epoch);

/* Files in `dir`. save: durable (file and directory) before it returns 0. load_all calls `cb` for each volume; a file
 * that cannot be understood is CORRUPT: guessing could offer what was fenced. */
int lmo_nbd_save(const char *dir, const struct lmo_nbd_volume *v, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_nbd_erase(const char *dir, const char *volume, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_nbd_load_all(const char *dir, int (*cb)(void *arg, const struct lmo_nbd_volume *v), void *arg,
                     struct lmo_err *err) LMO_MUST_CHECK;

/* Deadlines are CLOCK_MONOTONIC, in ms: what pthread condition variables can wait for. They bound waits; no safety
 * rests on them. */
uint64_t lmo_nbd_now_ms(void);
uint64_t lmo_nbd_left_ms(uint64_t deadline_ms); /* 0 when it has passed */

/* The service: QMP, and the deletions somebody waits for. */
struct lmo_nbd_watch;
struct lmo_nbd_service {
    struct lmo_qmp *qmp;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* CLOCK_MONOTONIC: an export is gone, the connection came or went */
    struct lmo_nbd_watch *watches;
    uint64_t generation; /* connection that is up; 0: none */
    bool stopped;
};

/* What the service says of one export. */
enum lmo_nbd_seen { LMO_NBD_ABSENT, LMO_NBD_OFFERED, LMO_NBD_DRAINING };

int lmo_nbd_service_open(struct lmo_nbd_service *s, const char *qmp, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_nbd_service_shutdown(struct lmo_nbd_service *s); /* fails all calls, under way and later */
void lmo_nbd_service_close(struct lmo_nbd_service *s);
uint64_t lmo_nbd_service_generation(struct lmo_nbd_service *s);
/* Waits until the service is there; *ret_generation (may be NULL) is its connection. UNAVAILABLE at the deadline. */
int lmo_nbd_service_await(struct lmo_nbd_service *s, uint64_t deadline_ms, uint64_t *ret_generation,
                          struct lmo_err *err) LMO_MUST_CHECK;
/* Did an attempt end with `rc` because the connection was lost, with time left for another one? Only for attempts
 * that may be repeated as a whole. */
bool lmo_nbd_try_again(struct lmo_nbd_service *s, int rc, uint64_t deadline_ms);

/* Makes the node exist for this path and format. CONFLICT if a node of that name is something else. */
int lmo_nbd_node_add(struct lmo_nbd_service *s, const struct lmo_nbd_volume *v, uint64_t deadline_ms,
                     struct lmo_err *err) LMO_MUST_CHECK;
int lmo_nbd_node_remove(struct lmo_nbd_service *s, const char *volume, uint64_t deadline_ms,
                        struct lmo_err *err) LMO_MUST_CHECK;
/* NOT_FOUND if the service has no node for it. */
int lmo_nbd_node_size(struct lmo_nbd_service *s, const char *volume, uint64_t deadline_ms, uint64_t *ret_bytes,
                      struct lmo_err *err) LMO_MUST_CHECK;
/* Makes the export exist. */
int lmo_nbd_offer(struct lmo_nbd_service *s, const char *volume, const char *export_name, uint64_t deadline_ms,
                  struct lmo_err *err) LMO_MUST_CHECK;
/* Makes the export not exist: 0 only once the service reported it deleted (nothing in flight any more) or was seen
 * not to have it. UNAVAILABLE: the service is down. TIMEOUT: it is still draining. */
int lmo_nbd_withdraw(struct lmo_nbd_service *s, const char *export_name, uint64_t deadline_ms,
                     struct lmo_err *err) LMO_MUST_CHECK;
/* Looks. `cb` (may be NULL) is called for every NBD export of ours that belongs to `volume`. */
int lmo_nbd_look(struct lmo_nbd_service *s, const char *volume,
                 void (*cb)(void *arg, const char *export_name, enum lmo_nbd_seen seen), void *arg,
                 uint64_t deadline_ms, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_nbd_look_one(struct lmo_nbd_service *s, const char *export_name, enum lmo_nbd_seen *ret_seen,
                     uint64_t deadline_ms, struct lmo_err *err) LMO_MUST_CHECK;

/* Slots. `deadline_ms` as above. */
struct lmo_nbd_slot {
    struct lmo_nbd_slot *next;
    struct lmo_nbd_volume v; /* changed only by the holder; the name never changes */
    bool held;
    bool known;          /* false: retired, or never completely provisioned; the slot is kept for its name */
    uint64_t reconciled; /* connection on which the service was last made to agree with the record */
};

struct lmo_nbd {
    struct lmo_volume_driver base; /* first: the two are cast into each other */
    struct lmo_nbd_service service;
    char dir[LMO_PATH_MAX];
    int lock_fd;             /* one driver per table */
    pthread_mutex_t lock;    /* slots: the list, held, known, reconciled */
    pthread_cond_t released; /* CLOCK_MONOTONIC */
    struct lmo_nbd_slot *slots;
    unsigned slot_count;
    bool stop, doubt; /* for the reconciler; under service.lock */
    pthread_t reconciler;
};

/* A slot for a volume that has none; NULL at the limit. Called with `lock` held, or before there are threads. */
struct lmo_nbd_slot *lmo_nbd_slot_new(struct lmo_nbd *d, const char *volume);
/* Takes the volume's slot. `create`: a volume that is not known yet gets one. BUSY at the deadline. */
int lmo_nbd_slot_hold(struct lmo_nbd *d, const char *volume, bool create, uint64_t deadline_ms,
                      struct lmo_nbd_slot **ret, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_nbd_slot_release(struct lmo_nbd *d, struct lmo_nbd_slot *s);
/* The rest is for the slot's holder. commit: makes `next` the record, durable first, then in memory. */
int lmo_nbd_slot_commit(struct lmo_nbd *d, struct lmo_nbd_slot *s, const struct lmo_nbd_volume *next,
                        struct lmo_err *err) LMO_MUST_CHECK;
/* Changes one export's state in the record; no write if it is so already. */
int lmo_nbd_slot_set(struct lmo_nbd *d, struct lmo_nbd_slot *s, const char *host, uint64_t epoch,
                     enum lmo_nbd_state state, struct lmo_err *err) LMO_MUST_CHECK;
/* Takes one export out of the record. */
int lmo_nbd_slot_drop(struct lmo_nbd *d, struct lmo_nbd_slot *s, const char *host, uint64_t epoch,
                      struct lmo_err *err) LMO_MUST_CHECK;
/* Removes the record; the volume is not known any more. */
int lmo_nbd_slot_forget(struct lmo_nbd *d, struct lmo_nbd_slot *s, struct lmo_err *err) LMO_MUST_CHECK;
/* What is known of the service's agreement is void: the next reconciliation looks again, whatever the connection. */
void lmo_nbd_slot_unsettle(struct lmo_nbd *d, struct lmo_nbd_slot *s);
/* The same, and the reconciler is told, so that it happens also when nobody asks. */
void lmo_nbd_slot_doubt(struct lmo_nbd *d, struct lmo_nbd_slot *s);

/* What the service has of one volume. */
struct lmo_nbd_seen_list {
    unsigned count;
    bool overflow;
    struct {
        char name[LMO_EXPORT_MAX];
        enum lmo_nbd_seen seen;
    } exports[2 * LMO_NBD_EXPORTS_MAX];
};
/* A callback for lmo_nbd_look(); `arg` is the list. */
void lmo_nbd_seen_add(void *arg, const char *export_name, enum lmo_nbd_seen seen);
enum lmo_nbd_seen lmo_nbd_seen_find(const struct lmo_nbd_seen_list *list, const char *export_name);

/* Makes the service agree with the record of a held slot. Exclusions first, offers last. Nothing is done if this
 * connection was reconciled already and nothing failed since. */
int lmo_nbd_reconcile(struct lmo_nbd *d, struct lmo_nbd_slot *s, uint64_t deadline_ms,
                      struct lmo_err *err) LMO_MUST_CHECK;
/* Looks at the volume on a connection on which it has been reconciled: what is missing then is really missing. */
int lmo_nbd_look_settled(struct lmo_nbd *d, struct lmo_nbd_slot *s, struct lmo_nbd_seen_list *ret, uint64_t deadline_ms,
                         struct lmo_err *err) LMO_MUST_CHECK;
/* Reconciles every volume each time the service comes back, until `stop`. */
void *lmo_nbd_reconciler_thread(void *arg);

#endif
