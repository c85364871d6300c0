/* sse.c - see sse.h. Lines end with LF or CRLF; a lone CR, which only an editor of the last century sends, is part of its line. */
#include "cli/sse.h"
#include "base/str.h"

#include <string.h>

void lmo_sse_restart(struct lmo_sse *s)
{
    s->id[0] = s->type[0] = '\0';
    s->any = s->too_long = false;
    s->line.max = s->data.max = LMO_SSE_LINE_MAX;
    lmo_buf_reset(&s->line);
    lmo_buf_reset(&s->data);
}

void lmo_sse_release(struct lmo_sse *s)
{
    lmo_buf_done(&s->line);
    lmo_buf_done(&s->data);
}

static void end_of_block(struct lmo_sse *s)
{
    if (s->id[0])
        LMO_COPY(s->last_id, s->id);
    if (s->any)
        s->fn(s->arg, s->type, lmo_buf_text(&s->data));
    s->id[0] = s->type[0] = '\0';
    s->any = false;
    lmo_buf_reset(&s->data);
}

static void end_of_line(struct lmo_sse *s)
{
    if (s->line.len > 0 && s->line.data[s->line.len - 1] == '\r')
        s->line.data[--s->line.len] = '\0';
    const char *line = lmo_buf_text(&s->line);
    size_t field = strcspn(line, ":");
    const char *value = line[field] ? line + field + (line[field + 1] == ' ' ? 2 : 1) : line + field;
    if (s->too_long || field == 0) { /* a comment keeps the connection alive and says nothing */
        if (!s->too_long && *line == '\0')
            end_of_block(s);
    } else if (field == 2 && memcmp(line, "id", 2) == 0) {
        LMO_COPY(s->id, value);
        s->any = true;
    } else if (field == 5 && memcmp(line, "event", 5) == 0) {
        LMO_COPY(s->type, value);
        s->any = true;
    } else if (field == 4 && memcmp(line, "data", 4) == 0) {
        /* What does not fit is left out: its reader finds that it is not JSON, and says so. */
        if ((s->data.len > 0 && lmo_buf_append(&s->data, "\n", 1) < 0) || lmo_buf_append_str(&s->data, value) < 0)
            lmo_buf_reset(&s->data);
        s->any = true;
    }
    lmo_buf_reset(&s->line);
    s->too_long = false;
}

void lmo_sse_feed(struct lmo_sse *s, const char *data, size_t len)
{
    s->line.max = s->data.max = LMO_SSE_LINE_MAX;
    while (len > 0) {
        const char *end = memchr(data, '\n', len);
        size_t n = end ? (size_t)(end - data) : len;
        s->too_long |= lmo_buf_append(&s->line, data, n) < 0;
        if (!end)
            return;
        end_of_line(s);
        data += n + 1;
        len -= n + 1;
    }
}
