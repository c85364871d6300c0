/* index.h - the CA's memory: every certificate it ever signed, and which of them are revoked.
 *
 * DIR/index, text, replaced atomically under the directory's lock:
 *   "lmo-pki-index 1" LF "crl_number N" LF { serial SP role SP name SP not_before SP not_after SP revoked LF }
 * times are seconds since 1970, revoked 0 = not. Invariants:
 *  1. A certificate is entered before it is written anywhere: none exists that could not be revoked.
 *  2. A revocation is entered before the CRL is made from the index, never the other way round: a CRL made later
 *     always holds every revocation before it.
 *  3. crl_number only grows. Private to lmo/pki. */
#ifndef LMO_PKI_INDEX_H
#define LMO_PKI_INDEX_H

#include "pki/ca.h"

#define LMO_PKI_ENTRIES_MAX 65536

struct lmo_pki_index {
    uint64_t crl_number;
    size_t count;
    struct lmo_pki_entry *entries; /* owned */
};

int lmo_pki_index_load(const char *dir, struct lmo_pki_index *ret, struct lmo_err *err) LMO_MUST_CHECK;
/* `first`: the file must not exist yet. */
int lmo_pki_index_store(const char *dir, const struct lmo_pki_index *index, bool first,
                        struct lmo_err *err) LMO_MUST_CHECK;
int lmo_pki_index_add(struct lmo_pki_index *index, const struct lmo_pki_entry *entry,
                      struct lmo_err *err) LMO_MUST_CHECK;
void lmo_pki_index_release(struct lmo_pki_index *index);

#endif
