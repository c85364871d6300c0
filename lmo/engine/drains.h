/* drains.h - what clients can ask about drains, placement, and what is said about hosts and guests. Any thread; replies as in
 * engine.h. */
#ifndef LMO_ENGINE_DRAINS_H
#define LMO_ENGINE_DRAINS_H

#include "core/drain.h"
#include "engine/engine.h"

struct lmo_drain_request {
    unsigned host_count;
    char (*hosts)[LMO_NAME_MAX]; /* in this order; taken over: freed by the callee, also after a failure */
    char labels[1024];           /* instead: all hosts that have these */
    uint32_t max_hosts;          /* at once; 0: all */
    uint32_t spare_hosts;        /* 1: N+1 */
    bool give_back, rolling;
    enum lmo_unmovable unmovable;
    char hook_url[LMO_URL_MAX], hook_command[LMO_NAME_MAX];
    int64_t wait_timeout_ms;       /* 0: the default */
    char plan[LMO_DRAIN_PLAN_MAX]; /* carried out only if this is still the plan; or empty */
    char principal[LMO_NAME_MAX + 32];
};
int lmo_engine_drain(struct lmo_engine *e, struct lmo_drain_request *req, lmo_engine_reply_fn *fn,
                     void *arg) LMO_MUST_CHECK;
int lmo_engine_drain_list(struct lmo_engine *e, const char *state, const struct lmo_page *page, lmo_engine_reply_fn *fn,
                          void *arg) LMO_MUST_CHECK;
/* As lmo_engine_migration_get. */
int lmo_engine_drain_get(struct lmo_engine *e, const char *id, uint64_t wait_version, uint32_t wait_ms,
                         lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
enum lmo_drain_act { LMO_DRAIN_ACT_PAUSE, LMO_DRAIN_ACT_RESUME, LMO_DRAIN_ACT_CANCEL, LMO_DRAIN_ACT_ACKNOWLEDGE };
/* `host`: ACKNOWLEDGE only. */
int lmo_engine_drain_act(struct lmo_engine *e, const char *id, enum lmo_drain_act act, const char *host, const char *principal,
                         lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;

/* Each host, and why it can or cannot take the guest. */
int lmo_engine_vm_explain(struct lmo_engine *e, const char *vm, uint32_t spare_hosts, lmo_engine_reply_fn *fn,
                          void *arg) LMO_MUST_CHECK;
/* Moves that balance the fleet, or empty as many hosts as can be. A dry run shows the plan; so does one of a drain. */
int lmo_engine_rebalance(struct lmo_engine *e, bool pack, uint32_t spare_hosts, const char *principal,
                         lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;

int lmo_engine_host_cordon(struct lmo_engine *e, const char *name, bool on, const char *reason, const char *principal,
                           lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* "key=value ..." replaces what there was; INVALID (in *err) for what is none. */
int lmo_engine_host_labels(struct lmo_engine *e, const char *name, const char *text, lmo_engine_reply_fn *fn, void *arg, struct lmo_err *err) LMO_MUST_CHECK;

struct lmo_vm_policy {
    bool unmovable_given;
    enum lmo_unmovable unmovable;
    char labels[1024];
    unsigned group_count;
    struct {
        char name[LMO_NAME_MAX];
        bool together, hard;
    } groups[LMO_GUEST_GROUPS_MAX];
};
int lmo_engine_vm_policy_set(struct lmo_engine *e, const char *uuid, const struct lmo_vm_policy *p,
                             lmo_engine_reply_fn *fn, void *arg, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_engine_vm_policy_get(struct lmo_engine *e, const char *uuid, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* seconds 0: gives it back. */
int lmo_engine_vm_lease_set(struct lmo_engine *e, const char *uuid, const char *reason, uint64_t seconds,
                            const char *principal, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_vm_lease_get(struct lmo_engine *e, const char *uuid, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;

#endif
