/* address.h - which addresses are whose: for calls to URLs that others gave us. */
#ifndef LMO_HTTP_ADDRESS_H
#define LMO_HTTP_ADDRESS_H

#include "base/err.h"

#include <stdbool.h>

struct sockaddr;

/* Is it an address of the public Internet? Not: loopback, private, shared, link-local, multicast, reserved ones, and IPv6 forms
 * that stand for such an IPv4 address. */
bool lmo_address_is_public(const struct sockaddr *address);
/* A URL that may be called: https://host[:port][/...], or http:// too where `plain` says so; no user, no fragment; a host that is
 * written as an address must be public unless `inside`. Names are judged when they are resolved. Errors begin with "url: ". */
int lmo_url_check(const char *url, bool plain, bool inside, struct lmo_err *err) LMO_MUST_CHECK;

#endif
