/* test_worker_cluster.h - three workers in one process around a fake world: hv1, hv2, and ctl (volumes and fabric).
 * The test plays the coordinator, over real HTTP with real certificates. */
#ifndef LMO_TESTS_UNIT_TEST_WORKER_CLUSTER_H
#define LMO_TESTS_UNIT_TEST_WORKER_CLUSTER_H

#include "fakes/world.h"
#include "http/client.h"
#include "pki/permit.h"
#include "proto/op.h"
#include "proto/peer.h"
#include "proto/stream.h"

enum { HV1, HV2, CTL, MEMBERS };
#define EVENTS_KEPT 64

struct member {
    struct lmo_worker_config cfg;
    struct fake_seat seat;
    struct lmo_worker *worker;
    pthread_t thread;
    uint16_t port;
    char url[LMO_URL_MAX];
    uint64_t cursor;
    unsigned event_count;
    struct lmo_worker_event events[EVENTS_KEPT];
    struct lmo_progress progress; /* newest */
    bool has_progress;
};

struct cluster {
    struct fake_world *world;
    struct member m[MEMBERS];
    struct lmo_loop *loop;
    struct lmo_http_client *client; /* as coordinator */
    char dir[128];
    char migration[LMO_ID_MAX];
    uint64_t epoch;
    unsigned ordinal;
    char permit[LMO_PERMIT_TEXT_MAX];
    struct lmo_volume volumes[FAKE_VOLUMES];
    struct lmo_port port;
    bool paused_by_user;
    unsigned restarts;
    uint32_t deadman_ms;
};

/* Once, before the tests fork: certificates for everybody. */
void cluster_pki_setup(void);
void cluster_pki_teardown(void);
const char *cluster_pki(void);
struct lmo_tls_files cluster_tls(const char *role, const char *name);

struct cluster *cluster_new(void);
/* `die`: see journal.h, for member `victim`; -1: nobody. */
struct cluster *cluster_new_dying(int victim, unsigned die_at_commit, bool before);
void cluster_free(struct cluster *c);
void cluster_stop(struct cluster *c, int member); /* as SIGTERM, or the end after die_at_commit */
void cluster_start(struct cluster *c, int member);
void cluster_restart(struct cluster *c, int member);
/* Restarts whoever has died at its commit. True if somebody had. */
bool cluster_revive_dead(struct cluster *c);

/* One request, one answer; 0 or how the transport failed. */
int cluster_request(struct cluster *c, struct lmo_http_client *client, int member, const char *method, const char *path,
                    const char *body, uint64_t timeout_ms, unsigned *ret_status, char **ret_body);
/* Fills in what every order of this migration carries. */
void cluster_fill(struct cluster *c, enum lmo_op_kind kind, struct lmo_op_request *req);
/* PUT until there is a definite answer. Returns 0 with *reply (to be freed), or the code of an HTTP refusal. */
int cluster_put(struct cluster *c, int member, const struct lmo_op_request *req, struct lmo_op_reply *reply);
/* The whole of it: new id, fill, put; returns the reply's code (0: done). Text of the failure in *why if not NULL. */
int cluster_op(struct cluster *c, int member, enum lmo_op_kind kind, char why[LMO_TEXT_MAX]);
/* For volume `index`, or port 0. */
int cluster_op_volume(struct cluster *c, enum lmo_op_kind kind, unsigned index);

void cluster_poll(struct cluster *c, int member, uint64_t wait_ms);
bool cluster_has_event(const struct cluster *c, int member, enum lmo_worker_event_kind kind,
                       struct lmo_worker_event *ret);
bool cluster_wait_event(struct cluster *c, int member, enum lmo_worker_event_kind kind, unsigned timeout_ms,
                        struct lmo_worker_event *ret);

void cluster_sign(struct cluster *c, uint64_t epoch, uint64_t lives_ms, char text[LMO_PERMIT_TEXT_MAX]);
void cluster_sign_as(struct cluster *c, const char *key, uint64_t epoch, uint64_t lives_ms, const char *source,
                     const char *destination, char text[LMO_PERMIT_TEXT_MAX]);

/* Parts of a migration hv1 -> hv2. Each returns 0 or the code of the first op that failed. */
int cluster_prepare(struct cluster *c);   /* up to and with DUAL */
int cluster_arm(struct cluster *c);       /* PERMIT */
int cluster_start_job(struct cluster *c); /* JOB_START */
int cluster_open(struct cluster *c);      /* AWAIT_*, OPEN_GATE: the pause may follow at once */
bool cluster_until_resumed(struct cluster *c, unsigned timeout_ms); /* plays the coordinator's part: relays, permits */
int cluster_finalize(struct cluster *c);
int cluster_rollback(struct cluster *c);
int cluster_close(struct cluster *c);
/* Epoch + 1: what a takeover or a revive needs. */
void cluster_raise_epoch(struct cluster *c);

uint64_t cluster_observe_stage(struct cluster *c, int member, const char *role, char stage[32]); /* number of records */

#endif
