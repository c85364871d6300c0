/* suites.h - every unit test suite: X(name) stands for `Suite *name_suite(void)`. One line each, so that additions merge. */
#ifndef LMO_TESTS_UNIT_SUITES_H
#define LMO_TESTS_UNIT_SUITES_H

#include <check.h>

#define LMO_SUITES(X) \
    X(ovsdb)          \
    X(openflow)       \
    X(fabric_ovn)     \
    X(network_ovn)    \
    X(proto)          \
    X(store)          \
    X(store_tidy)     \
    X(rpc)            \
    X(api)            \
    X(api_contract)   \
    X(api_hostile)    \
    X(qmp)            \
    X(volume_nbd)     \
    X(tools)          \
    X(base)           \
    X(fault)          \
    X(core)           \
    X(engine)         \
    X(engine_drains)  \
    X(cli_drain)      \
    X(hooks)          \
    X(engine_many)    \
    X(loop)           \
    X(sql)            \
    X(http)           \
    X(pki)            \
    X(cli_parse)      \
    X(cli_render)     \
    X(worker_cutover) \
    X(worker_ops)     \
    X(worker_config)  \
    X(cli_wait)       \
    X(domain_xml)     \
    X(reach)          \
    X(freeze_evidence) \
    X(hypervisor_event) \
    X(attention)      \
    X(breaker)        \
    X(term)           \
    X(doctor)         \
    X(convergence)    \
    X(admission)      \
    X(engine_admission) \
    X(placement)      \
    X(planner_kept)   \
    X(planner)        \
    X(parallel)       \
    X(worker_host)    \
    X(destination) \
    X(cli_context) \
    X(cli_words) \
    X(cli_top) \
    X(events) \
    X(follow) \
    X(webhooks) \
    X(observe) \
    X(restore)

/* A partial build (cmake -DLMO_UNIT_FILES=...) leaves suites out; the full one fails to link if one is missing. */
#ifdef LMO_UNIT_PARTIAL
#define LMO_SUITE_ATTRIBUTE __attribute__((weak))
#else
#define LMO_SUITE_ATTRIBUTE
#endif

#define X(name) Suite *name##_suite(void) LMO_SUITE_ATTRIBUTE;
LMO_SUITES(X)
#undef X

#endif
