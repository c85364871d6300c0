/* peer.h - what workers say to each other at the cutover, without the coordinator.
 *
 *   POST /v1/peer/ping       {}                        -> {}            opens the connection ahead of time
 *   POST /v1/peer/suspended  {permit, pause}           -> {}            source to destination: open your ingress
 *   POST /v1/peer/freeze     {permit}                  -> {answer, evidence, freeze_us, frozen_us}
 *   POST /v1/peer/fence      {permit, index}           -> {fence_us}    destination to volume worker
 *   POST /v1/peer/verify     {permit, index}           -> {verify_us}
 *   POST /v1/peer/kill       {permit}                  -> {}            destination to source, after the resume
 *
 * Authorisation: the caller's certificate names a host worker, AND the permit's signature is the coordinator's, AND
 * the permit names that host in the role that the call needs (destination for freeze, fence, verify, kill; source
 * for suspended), AND the permit's epoch is not below what the receiver has seen for that guest. */
#ifndef LMO_PROTO_PEER_H
#define LMO_PROTO_PEER_H

#include "base/err.h"
#include "base/types.h"

#include <jansson.h>
#include <stddef.h>

#define LMO_PEER_BODY_MAX (32U << 10)

struct lmo_peer_request {
    const char *permit;   /* borrowed on encode; owned by the decoded request (…_done) */
    char *permit_owned;
    unsigned index;       /* fence, verify: which of the permit's volumes */
    uint64_t pause;       /* suspended: number of this pause, 1 is the job's first */
};
struct lmo_peer_reply {
    char answer[16], evidence[512]; /* freeze */
    int64_t frozen_us;              /* freeze: CLOCK_REALTIME at the source */
    uint64_t duration_us;           /* how long the receiver took */
};
void lmo_peer_request_done(struct lmo_peer_request *r);
int lmo_peer_request_encode(const struct lmo_peer_request *r, char **ret_text, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_peer_request_decode(const char *text, size_t len, struct lmo_peer_request *ret, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_peer_reply_encode(const struct lmo_peer_reply *r, char **ret_text, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_peer_reply_decode(const char *text, size_t len, struct lmo_peer_reply *ret, struct lmo_err *err) LMO_MUST_CHECK;

#endif
