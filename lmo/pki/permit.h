/* permit.h - the coordinator's signed word that one destination may carry out one cutover.
 *
 * Signed by lmod with DIR/permit.key (Ed25519), verified by workers with DIR/permit.pub. A permit says what was
 * agreed before the gate opened: which guest, under which epoch, from where to where, which exports are to be
 * fenced and which verified, and how the guest is to stand afterwards. It is necessary for a resume and never
 * sufficient: the destination runs only on the source's word (freeze), and the permit alone proves nothing about
 * the source.
 *
 * Invariants:
 *  1. The signature covers the exact payload bytes that travelled. Nothing of the payload is parsed before the
 *     signature has been verified over them, and every signed byte string has one meaning: the encoding is
 *     canonical, and what does not re-encode to the same bytes is refused.
 *  2. Everything is capped, the envelope before it is parsed, the payload before it is decoded.
 *  3. Expiry limits ARMING only (lmo_permit_may_arm). A permit that was armed in time is never ended by a clock;
 *     only a higher epoch that all participants have adopted ends it.
 *
 * Payload (docs/pki.md has the grammar): "lmo-permit 1\n", then one "key value\n" line per field in a fixed order,
 * one "volume ..." line per volume, and "end\n". Envelope: {"payload":"<base64>","signature":"<base64>"}. */
#ifndef LMO_PKI_PERMIT_H
#define LMO_PKI_PERMIT_H

#include "base/err.h"
#include "base/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LMO_PERMIT_VERSION     1
#define LMO_PERMIT_PAYLOAD_MAX 12288 /* bytes; 16 volumes at their largest fit */
#define LMO_PERMIT_TEXT_MAX    20480 /* envelope with its terminator; what sign fills, the most verify accepts */
#define LMO_PERMIT_LIFE_MAX_MS (24ULL * 3600 * 1000) /* expires - issued: a permit for a longer life is refused */
#define LMO_PERMIT_SKEW_MS     60000ULL              /* how far `issued_ms` may lie in this host's future */

enum lmo_permit_final {
    LMO_PERMIT_FINAL_RUNNING = 1, /* stored "running" */
    LMO_PERMIT_FINAL_PAUSED,      /* stored "paused": its owner had paused the guest, and it stays so */
};
const char *lmo_permit_final_name(enum lmo_permit_final f);

struct lmo_permit_volume {
    char volume[LMO_NAME_MAX];
    char service[LMO_ADDRESS_MAX];           /* address:port of the volume service */
    char worker[LMO_NAME_MAX];               /* host whose worker serves it: whom to ask for the fence */
    char export_source[LMO_EXPORT_MAX];      /* to be fenced */
    char export_destination[LMO_EXPORT_MAX]; /* to be verified, never fenced by this permit */
};

struct lmo_permit {
    uint32_t version;           /* LMO_PERMIT_VERSION; sign fills it in when 0 */
    char migration[LMO_ID_MAX]; /* ULID */
    char vm_uuid[LMO_UUID_MAX];
    uint64_t epoch;            /* at least 1 */
    char source[LMO_NAME_MAX]; /* host names */
    char destination[LMO_NAME_MAX];
    enum lmo_permit_final final_state;
    uint64_t issued_ms;  /* CLOCK_REALTIME */
    uint64_t expires_ms; /* CLOCK_REALTIME; arming only */
    unsigned volume_count;
    struct lmo_permit_volume volumes[LMO_VOLUMES_MAX];
};

/* Keys are loaded once and then only read: one handle may be used by several threads at the same time. */
struct lmo_permit_key;    /* signs */
struct lmo_permit_public; /* verifies; holds up to 4 keys, so that a new one can be added before the old one goes */

/* PEM files. A private key that others may read (mode & 077) is refused. *ret is owned by the caller. */
int lmo_permit_key_load(const char *path, struct lmo_permit_key **ret, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_permit_public_load(const char *path, struct lmo_permit_public **ret, struct lmo_err *err) LMO_MUST_CHECK;
/* Take NULL, return NULL. */
struct lmo_permit_key *lmo_permit_key_free(struct lmo_permit_key *k);
struct lmo_permit_public *lmo_permit_public_free(struct lmo_permit_public *p);
static inline void lmo_cleanup_permit_key(struct lmo_permit_key **k)
{
    *k = lmo_permit_key_free(*k);
}
static inline void lmo_cleanup_permit_public(struct lmo_permit_public **p)
{
    *p = lmo_permit_public_free(*p);
}

/* Encodes, signs and writes the terminated envelope to ret_text (size >= LMO_PERMIT_TEXT_MAX is always enough).
 * INVALID names the field that cannot be put into a permit. Borrows everything. */
int lmo_permit_sign(const struct lmo_permit_key *key, const struct lmo_permit *permit, char *ret_text, size_t size,
                    struct lmo_err *err) LMO_MUST_CHECK;

/* Verifies, then decodes. FORBIDDEN: the signature is of none of the keys. INVALID / TOO_LARGE: not an envelope, or
 * a payload that is not canonical. UNSUPPORTED: another version. Says nothing about expiry. */
int lmo_permit_verify(const struct lmo_permit_public *pub, const char *text, struct lmo_permit *ret_permit,
                      struct lmo_err *err) LMO_MUST_CHECK;

/* May a permit be armed now (CLOCK_REALTIME)? REFUSED with both times if it expired, or if it was issued further in
 * the future than LMO_PERMIT_SKEW_MS (a clock is wrong). Ask when arming, never afterwards. */
int lmo_permit_may_arm(const struct lmo_permit *permit, uint64_t now_realtime_ms, struct lmo_err *err) LMO_MUST_CHECK;

/* The same agreement, field by field? A second permit for the same migration and epoch must be equal to the first,
 * except for its times. */
bool lmo_permit_same(const struct lmo_permit *a, const struct lmo_permit *b);

/* Canonical payload alone: for tests, fuzzers and display. decode accepts exactly what encode produces. */
int lmo_permit_encode(const struct lmo_permit *permit, char *ret_payload, size_t size, size_t *ret_len,
                      struct lmo_err *err) LMO_MUST_CHECK;
int lmo_permit_decode(const char *payload, size_t len, struct lmo_permit *ret_permit,
                      struct lmo_err *err) LMO_MUST_CHECK;

#endif
