/* identity.h - who is at the other end: a role and a name, from the certificate's one URI `urn:lmo:<role>:<name>`.
 *
 * A certificate without exactly one such URI has no identity and is refused. Names follow lmo_name_valid. What a role
 * may do is decided where the request is handled; the default is nothing. */
#ifndef LMO_HTTP_IDENTITY_H
#define LMO_HTTP_IDENTITY_H

#include "base/err.h"
#include "base/types.h"

#include <stdbool.h>

/*        name            text */
#define LMO_ROLES(X)                  \
    X(COORDINATOR, "coordinator")     \
    X(WORKER, "worker")               \
    X(OPERATOR, "operator")           \
    X(CONTROL_PLANE, "control-plane") \
    X(VIEWER, "viewer")               \
    X(FAULT_INJECTOR, "fault-injector")

enum lmo_role {
    LMO_ROLE_NONE = 0,
#define X(name, text) LMO_ROLE_##name,
    LMO_ROLES(X)
#undef X
};

#define LMO_URN_MAX         112
#define LMO_SERIAL_MAX      48 /* hexadecimal, lower case */
#define LMO_FINGERPRINT_MAX 65 /* SHA-256 of the certificate, hexadecimal, lower case */

struct lmo_identity {
    enum lmo_role role;
    char name[LMO_NAME_MAX];
    char serial[LMO_SERIAL_MAX];
    char fingerprint[LMO_FINGERPRINT_MAX];
    bool by_token; /* from a bearer token, not from a certificate: no serial, no fingerprint */
};

/* "none" for LMO_ROLE_NONE. */
const char *lmo_role_name(enum lmo_role role);
enum lmo_role lmo_role_from_name(const char *text); /* LMO_ROLE_NONE if unknown */

/* "urn:lmo:worker:hv1" -> role and name (serial and fingerprint untouched). INVALID with the reason otherwise. */
int lmo_identity_parse_urn(const char *urn, struct lmo_identity *ret_identity, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_identity_format_urn(enum lmo_role role, const char *name, char ret_urn[LMO_URN_MAX]);

#endif
