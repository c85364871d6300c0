/* fabric_ovn.h - what the files of OVN's fabric driver share: looking things up in its two databases. */
#ifndef LMO_WORKERS_FABRIC_OVN_H
#define LMO_WORKERS_FABRIC_OVN_H

#include "workers/drivers/driver.h"
#include "workers/drivers/ovsdb.h"

#include <pthread.h>

struct ovn_fabric {
    struct lmo_fabric base;
    struct lmo_ovsdb *nb, *sb;
    pthread_mutex_t lock;   /* guards what follows */
    int64_t round_trip;     /* the nb_cfg that was asked for last */
    uint64_t round_trip_ns; /* when; 0: never */
};

/* A host as OVN knows it. */
struct ovn_chassis {
    char uuid[LMO_UUID_MAX];
    char name[128], hostname[256];
};

/* A logical switch port. */
struct ovn_lsp {
    char uuid[LMO_UUID_MAX];
    char type[32];
    char requested[512]; /* options:requested-chassis; "" when there is none */
    bool held;           /* options:activation-strategy=rarp */
    bool has_strategy;   /* any strategy at all */
    bool up, enabled, has_parent;
    json_t *options; /* owned: the whole map, for compare-and-set */
};
void ovn_lsp_done(struct ovn_lsp *lsp);

/* A port's binding in the southbound database, as one row says it. Chassis are row UUIDs, "" for none. */
struct ovn_binding {
    char chassis[LMO_UUID_MAX], requested[LMO_UUID_MAX];
    const json_t *additional, *requested_additional; /* borrowed from the row */
    const char *activated;                           /* options:additional-chassis-activated; NULL: none */
    bool has_strategy, up;
};
extern const char *const ovn_binding_columns[];
json_t *ovn_binding_where(const char *port_id); /* returns owned */
/* From the rows of a select (array) or of a watch (object); false when there is not exactly one. */
bool ovn_binding_read(const json_t *rows, struct ovn_binding *ret);
/* Is `name` in the comma-separated list `list`? */
bool ovn_list_has(const char *list, const char *name);

/* INVALID, naming the port, when it has no logical port's name. */
int ovn_check_port(const struct lmo_port *port, struct lmo_err *err) LMO_MUST_CHECK;
/* A chassis by its name (system-id) or, if none has that name, by its host name. NOT_FOUND; CONFLICT if several. */
int ovn_find_chassis(struct ovn_fabric *f, const char *host, uint64_t deadline_ns, struct ovn_chassis *ret,
                     struct lmo_err *err) LMO_MUST_CHECK;
/* *ret is to be released with ovn_lsp_done. NOT_FOUND. */
int ovn_find_lsp(struct ovn_fabric *f, const char *port_id, uint64_t deadline_ns, struct ovn_lsp *ret,
                 struct lmo_err *err) LMO_MUST_CHECK;
/* Sets requested-chassis and activation-strategy (NULL: removes it), if the options still are what `lsp` says: CONFLICT
 * if not. TIMEOUT and UNKNOWN: look. */
int ovn_set_request(struct ovn_fabric *f, const struct ovn_lsp *lsp, const char *requested, const char *strategy,
                    uint64_t deadline_ns, struct lmo_err *err) LMO_MUST_CHECK;
/* Does the text of a requested-chassis entry mean this chassis? */
bool ovn_means(const struct ovn_chassis *c, const char *text);

/* fabric_ovn_check.c: REFUSED, saying what it is, when connections through the port live in the source's conntrack. */
int ovn_check_stateless(struct ovn_fabric *f, const struct lmo_port *port, const struct ovn_lsp *lsp,
                        uint64_t deadline_ns, struct lmo_err *err) LMO_MUST_CHECK;
/* fabric_ovn_check.c: the driver's `check_unbound`. */
int ovn_check_unbound(struct lmo_fabric *base, const struct lmo_port *port, const char *source, const char *destination,
                      uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
/* fabric_ovn_check.c: the driver's `check`. */
int ovn_check(struct lmo_fabric *base, const struct lmo_port *port, const char *source, const char *destination,
              bool accept_stateful_loss, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;

#endif
