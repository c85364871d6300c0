/* ca.h - the certificate authority behind `lmo pki`: a directory of files, no service, no state elsewhere.
 *
 *   DIR (0700)  ca.pem  ca.key  crl.pem  permit.key  permit.pub  index  lock  issued/ROLE-NAME.{pem,key}
 *
 * ca.key and permit.key are what an attacker wants: DIR belongs on an administrator's machine. Hosts get ca.pem,
 * crl.pem, permit.pub and their own pair; only the coordinator gets permit.key. Invariants: keys are 0600 whatever the
 * umask; nothing is overwritten unless asked for (renew); what was signed is in the index first (index.h). */
#ifndef LMO_PKI_CA_H
#define LMO_PKI_CA_H

#include "base/err.h"
#include "base/types.h"
#include "http/identity.h"

#include <stdbool.h>
#include <stdint.h>

#define LMO_PKI_SERIAL_MAX       33 /* 127 random bits as lower-case hex, and the terminator */
#define LMO_PKI_ADDRESSES_MAX    16
#define LMO_PKI_DNS_MAX          254 /* with the terminator */
#define LMO_PKI_CA_DAYS          3650
#define LMO_PKI_LEAF_SECONDS     (90LL * 86400)
#define LMO_PKI_LEAF_SECONDS_MAX (825LL * 86400)
#define LMO_PKI_CRL_SECONDS      (365LL * 86400)
#define LMO_PKI_BACKDATE_SECONDS 300 /* certificates start that long ago: hosts' clocks differ a little */

enum lmo_pki_status { LMO_PKI_VALID = 1, LMO_PKI_EXPIRED, LMO_PKI_REVOKED };
const char *lmo_pki_status_name(enum lmo_pki_status s);

struct lmo_pki_entry {
    char serial[LMO_PKI_SERIAL_MAX];
    enum lmo_role role;
    char name[LMO_NAME_MAX];
    int64_t not_before_s, not_after_s; /* seconds since 1970 */
    int64_t revoked_s;                 /* 0: not revoked */
};
enum lmo_pki_status lmo_pki_entry_status(const struct lmo_pki_entry *e, int64_t now_s);

struct lmo_pki_request {
    enum lmo_role role;
    char name[LMO_NAME_MAX];
    unsigned address_count;
    char addresses[LMO_PKI_ADDRESSES_MAX][LMO_PKI_DNS_MAX]; /* IP addresses or DNS names */
    int64_t lifetime_s;                                     /* 0: LMO_PKI_LEAF_SECONDS */
    bool hypervisor; /* for libvirt's and QEMU's own connections (libvirt.h): their checks want keyEncipherment, too */
    bool renew; /* a new key and certificate in place of the files that are there; with no address given,
                            those of the certificate being replaced are kept */
};

struct lmo_pki_issued {
    struct lmo_pki_entry entry;
    char certificate[LMO_PATH_MAX], key[LMO_PATH_MAX]; /* paths */
};

/* Makes DIR and everything in it but leaf certificates. CONFLICT if there is a CA; what an unsuccessful call made, it
 * removes. */
int lmo_pki_init(const char *dir, struct lmo_err *err) LMO_MUST_CHECK;

int lmo_pki_issue(const char *dir, const struct lmo_pki_request *request, struct lmo_pki_issued *ret_issued,
                  struct lmo_err *err) LMO_MUST_CHECK;

/* In the order of issue. `cb` returns non-zero to stop. *ret_crl_expires_s may be NULL. */
int lmo_pki_list(const char *dir, int (*cb)(void *arg, const struct lmo_pki_entry *e), void *arg,
                 int64_t *ret_crl_expires_s, struct lmo_err *err) LMO_MUST_CHECK;

/* `what`: a serial, or ROLE/NAME, which means every certificate of that identity that is not expired. Writes a new
 * crl.pem. NOT_FOUND if nothing matches. Revoking what is revoked already succeeds, counts 0 and writes the CRL. */
int lmo_pki_revoke(const char *dir, const char *what, unsigned *ret_revoked, struct lmo_err *err) LMO_MUST_CHECK;

/* The same revocations with a new nextUpdate. */
int lmo_pki_refresh_crl(const char *dir, struct lmo_err *err) LMO_MUST_CHECK;

#endif
