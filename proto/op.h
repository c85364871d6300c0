/* op.h - the op protocol's messages: what a coordinator orders and what a worker answers.
 *
 *   PUT /v1/ops/{op-id}            body: op request. 200 op reply; 202 reply with state "running" when it takes
 *                                  longer than the request may wait. Repeated: the same answer, never a second run.
 *   GET /v1/ops/{op-id}?wait_ms=N  200/202 op reply as above; 404 this worker never accepted that id;
 *                                  410 acknowledged and forgotten (its migration is closed here): never run again.
 *
 * An op that failed is a 200 with state "failed": the protocol worked. HTTP errors are about the request itself:
 * 400 malformed, 403 role, 409 stale epoch, 410 gone, 413 too large, 503 starting or stopping.
 *
 * Every request of a coordinator carries its term in the header LMO-Term (absent: 0). A worker remembers the highest,
 * durably, before it acts on anything that came with it, and refuses lower ones: 409 stale_term. So a coordinator that was
 * asleep while another took over can do nothing more here, whatever it had decided before. Orders about no migration (a
 * volume's first attachment) are not a coordinator's decision and need no term.
 *
 * Acknowledgement: the op kinds close_* end a migration at a worker. Their request is sent only after everything
 * the worker answered has been committed; the worker then forgets the migration's ops and refuses its epoch. */
#ifndef LMO_PROTO_OP_H
#define LMO_PROTO_OP_H

#include "base/err.h"
#include "base/ops.h"
#include "base/types.h"

#include <jansson.h>

#define LMO_TERM_HEADER "LMO-Term"
#define LMO_OP_BODY_MAX (256U << 10) /* bytes of JSON, either way; a domain XML is at most half of it */
#define LMO_XML_MAX (128U << 10)
#define LMO_PERMIT_MAX (20U << 10) /* as LMO_PERMIT_TEXT_MAX of pki/permit.h */

/* One request for all kinds: fields that a kind does not use are empty and not sent. */
struct lmo_op_request {
    char id[LMO_OP_ID_MAX];
    enum lmo_op_kind kind;
    char migration[LMO_ID_MAX];
    char vm[LMO_UUID_MAX];
    char vm_name[LMO_NAME_MAX];
    uint64_t epoch;
    char source[LMO_NAME_MAX], destination[LMO_NAME_MAX];     /* hosts */
    char source_url[LMO_URL_MAX], destination_url[LMO_URL_MAX]; /* their workers */
    char peer_uri[LMO_URL_MAX], migration_uri[LMO_URL_MAX];   /* JOB_START, CHECK_REACH */
    char link[LMO_NAME_MAX];         /* JOB_START, CHECK_REACH: the one that the memory must take; empty: any */
    char host[LMO_NAME_MAX];         /* ATTACH, VOLUME_PROVISION: for whom */
    char path[LMO_PATH_MAX], format[16]; /* VOLUME_PROVISION */
    char answer[16], evidence[512];  /* RELAY_ANSWER */
    unsigned volume_count;           /* DESCRIBE..: none. ATTACH etc.: 1. PERMIT, JOB_START: all */
    struct lmo_volume volumes[LMO_VOLUMES_MAX];
    unsigned port_count;             /* network ops: 1. PERMIT, JOB_START: all */
    struct lmo_port ports[LMO_PORTS_MAX];
    bool persistent, autostart, accept_stateful_loss;
    bool shut_off;                     /* the guest is: nothing is bound, nothing needs memory */
    enum lmo_run_state final_state;  /* REVIVE, SETTLE: RUNNING or PAUSED_BY_USER */
    uint64_t memory_bytes;
    uint64_t bandwidth_bytes_per_s, downtime_ms; /* JOB_START: behind the gate. OPEN_GATE: in force then */
    uint32_t dirty_fresh_ms;         /* DESCRIBE: a dirty rate no older than that is waited for; 0: what is known will do */
    uint32_t throttle_initial_percent, throttle_increment_percent; /* JOB_START: of the vCPUs' time; 0: no throttling */
    uint32_t deadman_ms;             /* JOB_START: abort by itself when the coordinator is silent for so long */
    char *xml;                       /* owned; PRECHECK_INCOMING, PREPARE */
    char *permit;                    /* owned; PERMIT, RELAY_FREEZE: the signed permit as text */
};
void lmo_op_request_done(struct lmo_op_request *r); /* frees what it owns */
/* As zeroed, but for the members of its arrays, which count for nothing until the counts say so: they are most of it. */
void lmo_op_request_clear(struct lmo_op_request *r);
int lmo_op_request_encode(const struct lmo_op_request *r, char **ret_text, struct lmo_err *err) LMO_MUST_CHECK;
/* Caps size and depth before parsing; errors name the field. On success the caller owns *ret (…_done). */
int lmo_op_request_decode(const char *text, size_t len, struct lmo_op_request *ret, struct lmo_err *err) LMO_MUST_CHECK;

enum lmo_op_state { LMO_OP_RUNNING = 0, LMO_OP_DONE, LMO_OP_FAILED };

struct lmo_op_reply {
    char id[LMO_OP_ID_MAX];
    enum lmo_op_state state;
    int code;                        /* FAILED: LMO_E_* */
    char text[LMO_TEXT_MAX];         /* FAILED: reason. Otherwise a remark for the journal, or empty */
    bool has_facts;
    struct lmo_vm_facts facts;       /* DESCRIBE */
    char export_name[LMO_EXPORT_MAX];/* ATTACH, VOLUME_PROVISION */
    char answer[16], evidence[512];  /* RELAY_FREEZE */
    int64_t realtime_us;             /* DESCRIBE, PRECHECK_INCOMING: the worker's clock while it carried them out */
    char *xml;                       /* owned; DESCRIBE */
};
void lmo_op_reply_done(struct lmo_op_reply *r);
int lmo_op_reply_encode(const struct lmo_op_reply *r, char **ret_text, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_op_reply_decode(const char *text, size_t len, struct lmo_op_reply *ret, struct lmo_err *err) LMO_MUST_CHECK;

#endif
