/* trace.c - W3C trace context: taken from requests, kept in records, given to workers and owners. */
#include "base/id.h"
#include "base/str.h"
#include "engine/internal.h"

#include <stdio.h>
#include <string.h>

static bool is_hex(const char *text, size_t len, bool *ret_zero)
{
    *ret_zero = true;
    for (size_t i = 0; i < len; i++) {
        bool good = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
        if (!good) {
            return false;
        }
        *ret_zero = *ret_zero && text[i] == '0';
    }
    return true;
}

/* "00-<32 hex>-<16 hex>-<2 hex>"; of a later version the same at its beginning. */
bool lmo_traceparent_parse(const char *text, struct lmo_trace *ret)
{
    bool zero_id, zero_span, zero;
    size_t len = strlen(text);
    if (len < 55 || text[2] != '-' || text[35] != '-' || text[52] != '-' || !is_hex(text, 2, &zero) ||
        !is_hex(text + 3, 32, &zero_id) || !is_hex(text + 36, 16, &zero_span) || !is_hex(text + 53, 2, &zero)) {
        return false;
    }
    bool version_0 = text[0] == '0' && text[1] == '0', version_ff = text[0] == 'f' && text[1] == 'f';
    if (zero_id || zero_span || version_ff || (version_0 && len != 55) || (len > 55 && text[55] != '-')) {
        return false;
    }
    *ret = (struct lmo_trace){.sampled = false};
    memcpy(ret->id, text + 3, 32);
    memcpy(ret->parent, text + 36, 16);
    char last = text[54];
    ret->sampled = ((last <= '9' ? last - '0' : last - 'a' + 10) & 1) != 0;
    return true;
}

static void random_hex(char *ret, size_t digits)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char bytes[16];
    lmo_random(bytes, sizeof bytes);
    for (size_t i = 0; i < digits; i++) {
        ret[i] = hex[(bytes[i / 2] >> (i % 2 * 4)) & 15];
    }
    ret[digits] = '\0';
    ret[0] = ret[0] == '0' ? '1' : ret[0]; /* all zeros would be none */
}

void engine_trace_begin(struct lmo_trace *t, const struct lmo_trace *from)
{
    if (from && from->id[0]) {
        *t = *from;
    } else {
        *t = (struct lmo_trace){.sampled = true};
        random_hex(t->id, 32);
    }
    random_hex(t->span, 16);
}

void engine_traceparent(const struct lmo_migration *m, unsigned phase, const char *before, char *ret, size_t size)
{
    char span[LMO_SPAN_ID_MAX];
    ret[0] = '\0';
    if (m->trace.id[0]) {
        lmo_trace_phase_span(m, phase, span);
        (void)snprintf(ret, size, "%s00-%s-%s-%s", before, m->trace.id, span, m->trace.sampled ? "01" : "00");
    }
}

unsigned engine_trace_phase(const struct lmo_migration *m)
{
    unsigned last = m->phase_time_count ? m->phase_time_count - 1 : LMO_PHASE_TIMES_MAX;
    return last < LMO_PHASE_TIMES_MAX && m->phase_times[last].phase == m->phase ? last : LMO_PHASE_TIMES_MAX;
}
