/* What a switch sends: a stream of OpenFlow messages. */
#include "fuzz.h"

#include "workers/drivers/openflow.h"
#include "workers/drivers/openflow_wire.h"

static void on_flow(void *arg, const struct lmo_openflow_flow *flow)
{
    (*(size_t *)arg) += flow != NULL;
}

static void on_port(void *arg, const struct lmo_openflow_port *port)
{
    (*(size_t *)arg) += port != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = (uint8_t *)fuzz_text(data, size);
    struct of_message m;
    size_t at = 0, used = 0, seen = 0;
    while (of_parse(copy + at, size - at, &m, &used) == 1) {
        uint16_t type = 0, code = 0;
        bool more = false;
        lmo_assert(used > 0 && used <= size - at && m.len <= used);
        (void)of_hello_allows(&m);
        (void)of_multipart_head(&m, &type, &more);
        (void)of_error(&m, &type, &code);
        (void)!of_each_flow(&m, on_flow, &seen);
        (void)!of_each_port(&m, on_port, &seen);
        at += used;
    }
    free(copy);
    return 0;
}
