/* event_row.c - events by themselves: what one looks like, and which filter it matches. Pure. */
#include "engine/feed.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WORDS_MAX 32

static bool word_is_good(const char *word, size_t len)
{
    if (len == 1 && word[0] == '*') {
        return true;
    }
    if (len > 2 && memcmp(word + len - 2, ".*", 2) == 0) {
        len -= 2;
    }
    if (len == 0 || len >= LMO_EVENT_TYPE_MAX || word[0] == '.' || word[len - 1] == '.') {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        bool good = (word[i] >= 'a' && word[i] <= 'z') || word[i] == '_' || (word[i] == '.' && word[i - 1] != '.');
        if (!good) {
            return false;
        }
    }
    return true;
}

int lmo_event_types_check(const char *types, struct lmo_err *err)
{
    unsigned count = 0;
    if (strlen(types) >= LMO_WEBHOOK_TYPES_MAX) {
        return lmo_fail(err, LMO_E_INVALID, "types: longer than %d characters", LMO_WEBHOOK_TYPES_MAX - 1);
    }
    if (types[0] == '\0') {
        return 0;
    }
    for (const char *p = types;; p++) {
        size_t len = strcspn(p, ",");
        if (!word_is_good(p, len)) {
            return lmo_fail(
                err, LMO_E_INVALID,
                "types: '%.*s' is no type of event: must be words like migration.phase or migration.*, separated by "
                "commas",
                (int)(len > 60 ? 60 : len), p);
        }
        if (++count > WORDS_MAX) {
            return lmo_fail(err, LMO_E_INVALID, "types: more than %d of them", WORDS_MAX);
        }
        p += len;
        if (*p == '\0') {
            return 0;
        }
    }
}

static bool type_matches(const char *types, const char *type)
{
    for (const char *p = types; *p;) {
        size_t len = strcspn(p, ",");
        bool kind = len >= 1 && p[len - 1] == '*';
        size_t compared = kind ? len - 1 : len; /* with the stop before the star: "migration.*" is not "migrations.x" */
        if (strncmp(p, type, compared) == 0 && (kind || type[len] == '\0')) {
            return true;
        }
        p += len + (p[len] == ',');
    }
    return types[0] == '\0';
}

bool lmo_event_matches(const struct lmo_event_filter *f, const struct lmo_event_row *row)
{
    return type_matches(f->types, row->type) && (!f->migration[0] || strcmp(f->migration, row->migration) == 0) &&
           (!f->drain[0] || strcmp(f->drain, row->drain) == 0) &&
           (!f->vm[0] || strcmp(f->vm, row->vm) == 0 || strcmp(f->vm, row->vm_name) == 0) &&
           (!f->host[0] || strcmp(f->host, row->host) == 0 || strcmp(f->host, row->to_host) == 0);
}

size_t lmo_event_body(const struct lmo_event_row *row, char ret[LMO_EVENT_BODY_MAX])
{
    char stamp[LMO_TIMESTAMP_MAX], number[48] = "\"volatile\":true";
    lmo_realtime_format((uint64_t)row->at_ms * 1000, stamp);
    if (row->seq) {
        (void)snprintf(number, sizeof number, "\"sequence\":%" PRIu64, row->seq);
    }
    int n = snprintf(ret, LMO_EVENT_BODY_MAX, "{\"type\":\"%s\",\"timestamp\":\"%s\",%s,\"data\":%s}", row->type, stamp,
                     number, row->data);
    return n < 0 ? 0 : (size_t)n;
}
