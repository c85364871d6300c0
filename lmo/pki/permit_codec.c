/* permit_codec.c - the canonical payload of a permit: struct to bytes and back. No cryptography here.
 *
 * Canonical: one permit has one encoding. decode therefore parses strictly AND encodes what it understood again; bytes
 * that differ are refused, so that no second reading of a signed payload can exist.
 *
 *   payload   = "lmo-permit 1" LF
 *               "migration " ulid LF  "vm " uuid LF  "epoch " number LF  "source " name LF  "destination " name LF
 *               "final " ("running" | "paused") LF  "issued_ms " number LF  "expires_ms " number LF
 *               "volumes " number LF  { "volume " token " " token " " name " " token " " token LF }
 *               "end" LF
 *   number    = decimal digits without leading zeros;   token = printable ASCII without space
 *   volume    = name, service, worker, export_source, export_destination */
#include "base/id.h"
#include "pki/permit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *lmo_permit_final_name(enum lmo_permit_final f)
{
    switch (f) {
    case LMO_PERMIT_FINAL_RUNNING: return "running";
    case LMO_PERMIT_FINAL_PAUSED: return "paused";
    }
    return "invalid";
}

static bool token_valid(const char *s, size_t size)
{
    size_t len = strnlen(s, size);
    if (len == 0 || len == size)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < 0x21 || s[i] > 0x7e)
            return false;
    }
    return true;
}

static int check_volume(const struct lmo_permit *p, unsigned i, struct lmo_err *err)
{
    const struct lmo_permit_volume *v = &p->volumes[i];
    const char *field = NULL;
    if (!token_valid(v->volume, sizeof v->volume))
        field = "volume";
    else if (!token_valid(v->service, sizeof v->service))
        field = "service";
    else if (!lmo_name_valid(v->worker))
        field = "worker";
    else if (!token_valid(v->export_source, sizeof v->export_source))
        field = "export_source";
    else if (!token_valid(v->export_destination, sizeof v->export_destination))
        field = "export_destination";
    if (field)
        return lmo_fail(err, LMO_E_INVALID, "permit: volumes[%u].%s: empty, too long or not printable", i, field);
    if (strcmp(v->export_source, v->export_destination) == 0) {
        return lmo_fail(err, LMO_E_INVALID,
                        "permit: volumes[%u]: source and destination share one export, "
                        "so that a fence would hit both",
                        i);
    }
    for (unsigned j = 0; j < i; j++) {
        if (strcmp(p->volumes[j].volume, v->volume) == 0 && strcmp(p->volumes[j].service, v->service) == 0) {
            return lmo_fail(err, LMO_E_INVALID, "permit: volumes[%u] repeats volumes[%u]", i, j);
        }
    }
    return 0;
}

/* What may be signed is what may be believed: sign and verify both call this. */
static int check_fields(const struct lmo_permit *p, struct lmo_err *err)
{
    const char *field = NULL;
    if (!lmo_ulid_valid(p->migration))
        field = "migration: not a ULID";
    else if (!lmo_uuid_valid(p->vm_uuid))
        field = "vm: not a lower-case UUID";
    else if (p->epoch == 0)
        field = "epoch: zero";
    else if (!lmo_name_valid(p->source))
        field = "source: not a host name";
    else if (!lmo_name_valid(p->destination))
        field = "destination: not a host name";
    else if (strcmp(p->source, p->destination) == 0)
        field = "destination: the same host as source";
    else if (p->final_state != LMO_PERMIT_FINAL_RUNNING && p->final_state != LMO_PERMIT_FINAL_PAUSED)
        field = "final: neither running nor paused";
    else if (p->issued_ms == 0 || p->expires_ms <= p->issued_ms)
        field = "expires_ms: not after issued_ms";
    else if (p->expires_ms - p->issued_ms > LMO_PERMIT_LIFE_MAX_MS)
        field = "expires_ms: more than a day after issued_ms";
    else if (p->volume_count > LMO_VOLUMES_MAX)
        field = "volumes: too many";
    if (field)
        return lmo_fail(err, LMO_E_INVALID, "permit: %s", field);
    for (unsigned i = 0; i < p->volume_count; i++) {
        int rc = check_volume(p, i, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

struct sink {
    char *buf;
    size_t size, len;
    bool full;
};

static void put(struct sink *s, const char *fmt, ...) LMO_PRINTF(2, 3);
static void put(struct sink *s, const char *fmt, ...)
{
    if (s->full)
        return;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(s->buf + s->len, s->size - s->len, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= s->size - s->len)
        s->full = true;
    else
        s->len += (size_t)n;
}

int lmo_permit_encode(const struct lmo_permit *p, char *ret_payload, size_t size, size_t *ret_len, struct lmo_err *err)
{
    if (p->version != 0 && p->version != LMO_PERMIT_VERSION) {
        return lmo_fail(err, LMO_E_UNSUPPORTED, "permit: version %" PRIu32 " is not known here", p->version);
    }
    int rc = check_fields(p, err);
    if (rc < 0)
        return rc;

    char buf[LMO_PERMIT_PAYLOAD_MAX];
    struct sink s = {.buf = buf, .size = sizeof buf};
    put(&s, "lmo-permit %d\nmigration %s\nvm %s\nepoch %" PRIu64 "\nsource %s\ndestination %s\nfinal %s\n",
        LMO_PERMIT_VERSION, p->migration, p->vm_uuid, p->epoch, p->source, p->destination,
        lmo_permit_final_name(p->final_state));
    put(&s, "issued_ms %" PRIu64 "\nexpires_ms %" PRIu64 "\nvolumes %u\n", p->issued_ms, p->expires_ms,
        p->volume_count);
    for (unsigned i = 0; i < p->volume_count; i++) {
        const struct lmo_permit_volume *v = &p->volumes[i];
        put(&s, "volume %s %s %s %s %s\n", v->volume, v->service, v->worker, v->export_source, v->export_destination);
    }
    put(&s, "end\n");
    if (s.full || s.len >= size)
        return lmo_fail(err, LMO_E_TOO_LARGE, "permit: payload does not fit into %zu bytes", size);
    memcpy(ret_payload, buf, s.len + 1);
    *ret_len = s.len;
    return 0;
}

/* A reader over one mutable copy of the payload; every take_* moves on or sets `bad` to what was expected. */
struct source {
    char *at;
    const char *bad;
};

static char *take_line(struct source *s, const char *key)
{
    if (s->bad)
        return NULL;
    size_t key_len = strlen(key);
    char *end = strchr(s->at, '\n');
    if (!end || strncmp(s->at, key, key_len) != 0 || s->at[key_len] != ' ') {
        s->bad = key;
        return NULL;
    }
    char *value = s->at + key_len + 1;
    *end = '\0';
    s->at = end + 1;
    return value;
}

static void copy_text(struct source *s, const char *key, const char *value, char *ret, size_t size)
{
    if (s->bad)
        return;
    if (!value || strlen(value) >= size) {
        s->bad = key;
        return;
    }
    memcpy(ret, value, strlen(value) + 1);
}

static void take_text(struct source *s, const char *key, char *ret, size_t size)
{
    copy_text(s, key, take_line(s, key), ret, size);
}

static uint64_t take_number(struct source *s, const char *key, uint64_t max)
{
    const char *value = take_line(s, key);
    if (!value)
        return 0;
    char *end = NULL;
    errno = 0;
    unsigned long long n = strtoull(value, &end, 10);
    /* Signs, blanks and leading zeros, which strtoull lets pass, are caught by encoding again. */
    if (errno != 0 || end == value || *end != '\0' || n > max)
        s->bad = key;
    return n;
}

static void take_volume(struct source *s, struct lmo_permit_volume *v)
{
    char *rest = take_line(s, "volume");
    const char *part[5] = {0};
    for (size_t i = 0; i < 5 && rest; i++)
        part[i] = strsep(&rest, " ");
    if (!s->bad && (rest || !part[4]))
        s->bad = "volume";
    copy_text(s, "volume", part[0], v->volume, sizeof v->volume);
    copy_text(s, "volume service", part[1], v->service, sizeof v->service);
    copy_text(s, "volume worker", part[2], v->worker, sizeof v->worker);
    copy_text(s, "volume export_source", part[3], v->export_source, sizeof v->export_source);
    copy_text(s, "volume export_destination", part[4], v->export_destination, sizeof v->export_destination);
}

int lmo_permit_decode(const char *payload, size_t len, struct lmo_permit *ret_permit, struct lmo_err *err)
{
    if (len >= LMO_PERMIT_PAYLOAD_MAX)
        return lmo_fail(err, LMO_E_TOO_LARGE, "permit: payload of %zu bytes", len);
    if (memchr(payload, '\0', len))
        return lmo_fail(err, LMO_E_INVALID, "permit: payload holds a zero byte");
    char copy[LMO_PERMIT_PAYLOAD_MAX];
    memcpy(copy, payload, len);
    copy[len] = '\0';

    struct source s = {.at = copy};
    struct lmo_permit p = {0};
    p.version = (uint32_t)take_number(&s, "lmo-permit", UINT32_MAX);
    if (!s.bad && p.version != LMO_PERMIT_VERSION) {
        return lmo_fail(err, LMO_E_UNSUPPORTED, "permit: version %" PRIu32 " is not known here", p.version);
    }
    char final[16] = "";
    take_text(&s, "migration", p.migration, sizeof p.migration);
    take_text(&s, "vm", p.vm_uuid, sizeof p.vm_uuid);
    p.epoch = take_number(&s, "epoch", UINT64_MAX);
    take_text(&s, "source", p.source, sizeof p.source);
    take_text(&s, "destination", p.destination, sizeof p.destination);
    take_text(&s, "final", final, sizeof final);
    p.final_state = strcmp(final, "running") == 0  ? LMO_PERMIT_FINAL_RUNNING
                    : strcmp(final, "paused") == 0 ? LMO_PERMIT_FINAL_PAUSED
                                                   : (enum lmo_permit_final)0;
    p.issued_ms = take_number(&s, "issued_ms", UINT64_MAX);
    p.expires_ms = take_number(&s, "expires_ms", UINT64_MAX);
    p.volume_count = (unsigned)take_number(&s, "volumes", LMO_VOLUMES_MAX);
    for (unsigned i = 0; i < p.volume_count && !s.bad; i++)
        take_volume(&s, &p.volumes[i]);
    if (!s.bad && strcmp(s.at, "end\n") != 0)
        s.bad = "end";
    if (s.bad)
        return lmo_fail(err, LMO_E_INVALID, "permit: payload: expected \"%s\" and a value that fits", s.bad);

    char again[LMO_PERMIT_PAYLOAD_MAX];
    size_t again_len = 0;
    int rc = lmo_permit_encode(&p, again, sizeof again, &again_len, err);
    if (rc < 0)
        return rc;
    if (again_len != len || memcmp(again, payload, len) != 0) {
        return lmo_fail(err, LMO_E_INVALID, "permit: payload is not in its canonical form");
    }
    *ret_permit = p;
    return 0;
}

int lmo_permit_may_arm(const struct lmo_permit *permit, uint64_t now_realtime_ms, struct lmo_err *err)
{
    if (now_realtime_ms >= permit->expires_ms) {
        return lmo_fail(err, LMO_E_REFUSED,
                        "permit: expired at %" PRIu64 " ms, and it is %" PRIu64
                        " ms now: ask the coordinator for a new one",
                        permit->expires_ms, now_realtime_ms);
    }
    if (permit->issued_ms > now_realtime_ms && permit->issued_ms - now_realtime_ms > LMO_PERMIT_SKEW_MS) {
        return lmo_fail(err, LMO_E_REFUSED,
                        "permit: issued at %" PRIu64 " ms, and it is only %" PRIu64
                        " ms now: the clocks of coordinator and host differ",
                        permit->issued_ms, now_realtime_ms);
    }
    return 0;
}

bool lmo_permit_same(const struct lmo_permit *a, const struct lmo_permit *b)
{
    bool same = strcmp(a->migration, b->migration) == 0 && strcmp(a->vm_uuid, b->vm_uuid) == 0 &&
                a->epoch == b->epoch && strcmp(a->source, b->source) == 0 &&
                strcmp(a->destination, b->destination) == 0 && a->final_state == b->final_state &&
                a->volume_count == b->volume_count;
    for (unsigned i = 0; same && i < a->volume_count; i++) {
        const struct lmo_permit_volume *x = &a->volumes[i], *y = &b->volumes[i];
        same = strcmp(x->volume, y->volume) == 0 && strcmp(x->service, y->service) == 0 &&
               strcmp(x->worker, y->worker) == 0 && strcmp(x->export_source, y->export_source) == 0 &&
               strcmp(x->export_destination, y->export_destination) == 0;
    }
    return same;
}
