/* pki.c - certificates of a simulated fleet. */
#include "simworkers/fleet.h"

#include "base/str.h"
#include "pki/ca.h"

#include <stdio.h>

static int issue(const char *pki, enum lmo_role role, const char *name, const char *address, struct lmo_err *err)
{
    struct lmo_pki_request request = {.role = role, .address_count = 1};
    struct lmo_pki_issued issued;
    LMO_COPY(request.name, name);
    LMO_COPY(request.addresses[0], address);
    return lmo_pki_issue(pki, &request, &issued, err);
}

int fleet_make_pki(const char *dir, unsigned hosts, const char *address, struct lmo_err *err)
{
    char pki[LMO_PATH_MAX];
    snprintf(pki, sizeof pki, "%s/pki", dir);
    int r = lmo_pki_init(pki, err);
    if (r == 0) {
        r = issue(pki, LMO_ROLE_COORDINATOR, "fleet", address, err);
    }
    if (r == 0) {
        r = issue(pki, LMO_ROLE_OPERATOR, "fleet", address, err);
    }
    for (unsigned i = 1; r == 0 && i <= hosts; i++) {
        char name[LMO_NAME_MAX];
        snprintf(name, sizeof name, "hv%u", i);
        r = issue(pki, LMO_ROLE_WORKER, name, address, err);
    }
    return r;
}

struct lmo_tls_files fleet_tls(const char *dir, const char *role, const char *name)
{
    struct lmo_tls_files f = {0};
    snprintf(f.ca, sizeof f.ca, "%s/pki/ca.pem", dir);
    snprintf(f.crl, sizeof f.crl, "%s/pki/crl.pem", dir);
    snprintf(f.cert, sizeof f.cert, "%s/pki/issued/%s-%s.pem", dir, role, name);
    snprintf(f.key, sizeof f.key, "%s/pki/issued/%s-%s.key", dir, role, name);
    return f;
}
