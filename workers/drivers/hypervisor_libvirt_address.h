/* hypervisor_libvirt_address.h - what a hypervisor's or a migration's URI names, and whether this host reaches it.
 *
 * Pure of libvirt: text in, plain data out; sockets with a deadline. Only the libvirt driver and its test use this. */
#ifndef LMO_WORKERS_HYPERVISOR_LIBVIRT_ADDRESS_H
#define LMO_WORKERS_HYPERVISOR_LIBVIRT_ADDRESS_H

#include "base/err.h"
#include "base/types.h"

#define LMO_REACH_CONNECT_MS 3500 /* a SYN is sent at 0, 1 and 3 s: one or two that were lost are no verdict */

struct lmo_address {
    char scheme[32];
    char host[LMO_URL_MAX]; /* name or address, an IPv6 one without its brackets; empty: none */
    uint16_t port;          /* 0: none given */
};

/* "qemu+tcp://hv2/system", "tcp://[fd00::2]:49152", and libvirt's older "tcp:hv2". */
int lmo_address_parse(const char *uri, struct lmo_address *ret, struct lmo_err *err) LMO_MUST_CHECK;

/* The TCP port at which a remote hypervisor's URI is served, from its transport if it names none; 0: not by TCP. */
uint16_t lmo_address_hypervisor_port(const struct lmo_address *a);

/* Connects and closes. With `listener` somebody must listen at the port; without, an answer is enough, and "nobody
 * listens here" is one. REFUSED names the address and the port and says what came instead. */
int lmo_reach_tcp(const char *host, uint16_t port, bool listener, uint64_t timeout_ms,
                  struct lmo_err *err) LMO_MUST_CHECK;

/* Has this host a route there? Sends nothing. REFUSED likewise. */
int lmo_reach_route(const char *host, struct lmo_err *err) LMO_MUST_CHECK;

#endif
