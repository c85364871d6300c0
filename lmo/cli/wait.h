/* wait.h - waiting until one object of the coordinator is as somebody wants it, with what is seen meanwhile on stderr.
 *
 * An object that has versions is asked for with the version in hand, so the coordinator answers when something has changed
 * and not before; another is looked at once a second. A coordinator that goes away meanwhile (restart, take-over) is waited
 * for: what is waited for does not depend on it being there. Only what ends the wait decides the exit code. */
#ifndef LMO_CLI_WAIT_H
#define LMO_CLI_WAIT_H

#include "cli/cli.h"

struct lmo_wait;

/* A coordinator that does not answer is said once, borne with for a minute, and said again when it is back. */
struct lmo_patience {
    bool lost; /* it did not answer the last time */
    uint64_t since_ns;
};
/* After a request that comes_back(). `goes_on`: "the migration goes on" or ""; `later`: what to do then. Pauses. 0: try again;
 * otherwise the exit code, said. */
int lmo_patience_bear(struct lmo_cli *cli, struct lmo_patience *p, const struct lmo_err *err, const char *goes_on,
                      const char *later);
void lmo_patience_answered(struct lmo_cli *cli, struct lmo_patience *p);

/* What is waited for; static, or living as long as the wait. Functions are given the newest record. */
struct lmo_wait_spec {
    const char *noun;       /* "migration": in messages */
    const char *goes_on;    /* "the migration goes on"; "": nothing is under way that could */
    const char *collection; /* "/v1/migrations/" */
    const char *member;     /* every record has this one: otherwise the answer is none */
    bool versioned;         /* wait_version and wait_ms are understood */
    /* The exit code once the wait is over, or -1. */
    int (*outcome)(const struct lmo_wait *w, const json_t *record);
    void (*show)(struct lmo_wait *w, const json_t *record);                   /* NULL: nothing is shown */
    void (*state)(const struct lmo_wait *w, const json_t *record, char *buf, size_t size); /* "in phase precopy" */
};

struct lmo_wait {
    struct lmo_cli *cli;
    const struct lmo_wait_spec *spec;
    const char *id;
    const char *later;     /* "`lmo migration wait ID`": how to go on waiting, and what else can be done */
    const char *wanted;    /* --for; NULL: the end */
    uint64_t deadline_ns;  /* 0: none */
    size_t shown;          /* rows of phases[] that were printed */
    char live_phase[64];   /* phase of the line that is being redrawn; "" none */
    char said[160];        /* what it waits for, as said last, where lines are not redrawn */
    bool warned;           /* that it is predicted not to converge */
    struct lmo_patience patience;
};

/* `w` is set up to `wanted`. `first`: the record as known already, or NULL; borrowed. `timeout_ms` 0: for as long as it takes.
 * *ret_record (owned; NULL if none) is set whenever a record was seen. Returns the exit code. */
int lmo_wait_for(struct lmo_wait *w, const json_t *first, uint64_t timeout_ms, json_t **ret_record);
/* Ends the line that is being redrawn, if there is one. */
void lmo_wait_end_line(struct lmo_wait *w);

/* ---- migrations: wait_migration.c ---- */
extern const struct lmo_wait_spec lmo_wait_migration;
/* Follows one to its end. */
int lmo_wait_run(struct lmo_cli *cli, const char *id, const json_t *first, uint64_t timeout_ms, json_t **ret_record);
/* How a record ended: OK, ABORTED or ATTENTION; -1: it has not. */
int lmo_wait_outcome(const json_t *migration);

/* ---- what commands that follow more than one thing share ---- */

/* May the coordinator answer the next time? By the outcome of a request: gone, busy, restarting. */
bool lmo_wait_comes_back(const struct lmo_cli_reply *reply, int rc);
/* A pause of the waiting side alone; nothing is timed by it. */
void lmo_wait_pause(uint64_t ms);
#define LMO_WAIT_RETRY_MS    500
#define LMO_WAIT_PATIENCE_MS 60000

#endif
