/* What workers, the coordinator and workers among themselves send: operations, their replies, questions to peers, facts. */
#include "fuzz.h"

#include "base/json.h"
#include "proto/observe.h"
#include "proto/op.h"
#include "proto/peer.h"
#include "proto/stream.h"
#include "proto/vm.h"

static void facts(const char *text, size_t size)
{
    struct lmo_err err = {0};
    struct lmo_host_facts host = {0};
    static struct lmo_vm_facts vm;
    struct lmo_progress progress = {0};
    LMO_AUTO_JSON json_t *root = NULL;
    if (lmo_json_parse(text, size, 1U << 20, &root, &err) < 0) {
        return;
    }
    if (lmo_host_facts_from_json(root, &host, &err) == 0) {
        LMO_AUTO_JSON json_t *again = lmo_host_facts_to_json(&host);
        struct lmo_host_facts second = {0};
        lmo_assert(lmo_host_facts_from_json(again, &second, &err) == 0);
    }
    memset(&vm, 0, sizeof vm);
    if (lmo_vm_facts_from_json(root, &vm, &err) == 0) {
        LMO_AUTO_JSON json_t *again = lmo_vm_facts_to_json(&vm);
        lmo_assert(again && lmo_vm_facts_from_json(again, &vm, &err) == 0);
    }
    (void)!lmo_progress_from_json(root, &progress, &err);
}

static void event(const char *text, size_t size)
{
    struct lmo_err err = {0};
    struct lmo_worker_event e = {0};
    LMO_AUTO_JSON json_t *root = NULL;
    if (lmo_json_parse(text, size, LMO_STREAM_BODY_MAX, &root, &err) == 0 && lmo_worker_event_from_json(root, &e, &err) == 0) {
        LMO_AUTO_JSON json_t *again = lmo_worker_event_to_json(&e);
        lmo_assert(again && lmo_worker_event_from_json(again, &e, &err) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lmo_op_request request;
    static struct lmo_op_reply reply;
    struct lmo_peer_request peer = {0};
    struct lmo_peer_reply answer = {0};
    struct lmo_err err = {0};
    char *text = fuzz_text(data, size);
    memset(&request, 0, sizeof request);
    memset(&reply, 0, sizeof reply);
    (void)!lmo_op_request_decode(text, size, &request, &err);
    lmo_op_request_done(&request);
    (void)!lmo_op_reply_decode(text, size, &reply, &err);
    lmo_op_reply_done(&reply);
    (void)!lmo_peer_request_decode(text, size, &peer, &err);
    (void)!lmo_peer_reply_decode(text, size, &answer, &err);
    facts(text, size);
    event(text, size);
    free(text);
    return 0;
}
