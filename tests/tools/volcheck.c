/* volcheck.c - judges the numbered writes of the lab's guests: from the volume, from the write history, or both.
 *
 * The disk writer (deploy/lab/guest/diskwriter.c) writes record N into slot N % slots, one after the other, each
 * acknowledged before the next. So a volume whose newest record is M holds exactly M-slots+1 .. M in their slots.
 *   gap        a slot whose record is older than it must be, or missing: that write was lost, or an old one came later
 *   reordered  a slot that holds a number which does not belong there
 *   torn       a slot that holds neither a record nor nothing
 *
 * The history (nbdproxy --history) has every write that reached the service, in order, with the export it came through.
 * Accepted writes of records, in the order in which they were passed on:
 *   conflict   a number that was written before through ANOTHER export (two copies of a guest count alike), or one
 *              lower than the highest so far that comes through another export than that one did
 *   overlap    the time in which more than one export had writes accepted, in turns: from the first write of a newcomer
 *              to the last write of the one it displaced, if that is later
 *   lost       a number that never arrived between the first and the last
 *   stale      an accepted write through an export after the fence time given for it (--fenced EXPORT=US)
 * A retry of the same number through the same export is none of these.
 *
 * Exit code 0 if nothing is wrong, 1 if something is. */
#include "deploy/lab/guest/record.h"
#include "tests/tools/common.h"

#include <argp.h>
#include <fcntl.h>
#include <sys/stat.h>

#define SLOTS_MAX      65536u
#define EXPORTS_MAX    64
#define FENCES_MAX     16
#define LISTED_MAX     100
#define NAME_MAX_BYTES 256

const char *argp_program_version = "volcheck 1";

struct export
{
    char name[NAME_MAX_BYTES];
    uint64_t writes, refused, unanswered, first_us, last_us, first_seq, last_seq;
};

struct line {
    uint64_t number, forwarded_us, replied_us, offset, length, seq;
    int export_index;
    char status[24];
};

struct fence {
    char name[NAME_MAX_BYTES];
    uint64_t at_us;
};

struct check {
    const char *volume, *history, *prefix;
    uint64_t since_us, until_us;
    unsigned fence_count;
    struct fence fences[FENCES_MAX];
    bool wrong;
    unsigned export_count;
    struct export exports[EXPORTS_MAX];
    struct line *lines;
    size_t line_count, line_size;
};

enum { OPT_SINCE = 256, OPT_UNTIL, OPT_FENCED };

static const struct argp_option options[] = {
    {"volume", 'v', "FILE", 0, "The volume's raw file", 0},
    {"history", 'H', "FILE", 0, "History of writes from nbdproxy", 0},
    {"prefix", 'p', "TEXT", 0, "Only exports whose names begin so (a volume's name and a dot)", 0},
    {"since", OPT_SINCE, "US", 0, "Only history from this time on (CLOCK_REALTIME, microseconds)", 0},
    {"until", OPT_UNTIL, "US", 0, "Only history up to this time", 0},
    {"fenced", OPT_FENCED, "EXPORT=US", 0, "Writes accepted through EXPORT after this time are stale", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct check *c = state->input;
    char *equals;
    switch (key) {
    case 'v': c->volume = arg; break;
    case 'H': c->history = arg; break;
    case 'p': c->prefix = arg; break;
    case OPT_SINCE: c->since_us = tool_number(arg, "--since", 0, INT64_MAX); break;
    case OPT_UNTIL: c->until_us = tool_number(arg, "--until", 0, INT64_MAX); break;
    case OPT_FENCED:
        equals = strrchr(arg, '=');
        if (!equals || equals == arg || equals - arg >= NAME_MAX_BYTES || c->fence_count == FENCES_MAX)
            argp_error(state, "--fenced must be EXPORT=US, at most %d times", FENCES_MAX);
        memcpy(c->fences[c->fence_count].name, arg, (size_t)(equals - arg));
        c->fences[c->fence_count++].at_us = tool_number(equals + 1, "--fenced", 0, INT64_MAX);
        break;
    case ARGP_KEY_ARG: argp_usage(state); break;
    case ARGP_KEY_END:
        if (!c->volume && !c->history)
            argp_error(state, "--volume, --history or both");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    options, parse, NULL, "Judges the numbered writes on a volume and in its write history; reports JSON.",
    NULL,    NULL,  NULL};

/* ---------------------------------------------------------------- the volume */

static bool valid(const struct record *r)
{
    return r->magic == RECORD_MAGIC && r->crc == record_crc(r, offsetof(struct record, crc));
}

static bool all_zero(const struct record *r)
{
    static const struct record zero;
    return memcmp(r, &zero, sizeof(zero)) == 0;
}

struct slots {
    struct record *records;
    uint64_t count; /* slots in the file, at most SLOTS_MAX */
    uint64_t used;  /* slots the writer uses; 0: no record at all */
    uint64_t newest, newest_wall_ns;
};

static void read_slots(const char *path, struct slots *s)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        tool_die("cannot read %s: %s", path, strerror(errno));
    s->count = (uint64_t)st.st_size / RECORD_SLOT;
    if (s->count > SLOTS_MAX)
        s->count = SLOTS_MAX;
    s->records = calloc(s->count + 1, sizeof(*s->records));
    if (!s->records)
        tool_die("out of memory");
    for (uint64_t i = 0; i < s->count; i++) {
        struct record *r = &s->records[i];
        if (pread(fd, r, sizeof(*r), (off_t)(i * RECORD_SLOT)) != (ssize_t)sizeof(*r))
            tool_die("cannot read %s: %s", path, strerror(errno));
        if (valid(r) && r->seq > s->newest) {
            s->newest = r->seq;
            s->newest_wall_ns = r->wall_ns;
            s->used = r->slots;
        }
    }
    close(fd);
    if (s->used > s->count)
        s->used = s->count;
}

static void fault(json_t *list, const char *what, uint64_t slot, uint64_t found, uint64_t expected)
{
    if (json_array_size(list) < LISTED_MAX)
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I}", "what", what, "slot", (json_int_t)slot, "found",
                                              (json_int_t)found, "expected", (json_int_t)expected));
}

/* Is this the first slot with a record of its boot? Neighbours are looked at first: nearly all are of one boot. */
static bool new_boot(const struct slots *s, uint64_t slot)
{
    for (uint64_t i = slot; i-- > 0;)
        if (valid(&s->records[i]) && memcmp(s->records[i].boot, s->records[slot].boot, sizeof(s->records[0].boot)) == 0)
            return false;
    return true;
}

static json_t *judge_volume(struct check *c)
{
    struct slots s = {0};
    uint64_t gaps = 0, reordered = 0, torn = 0, records = 0, boots = 0;
    json_t *faults = json_array();
    read_slots(c->volume, &s);
    for (uint64_t i = 0; i < s.used; i++) {
        const struct record *r = &s.records[i];
        /* The newest number that belongs into slot i. */
        uint64_t back = (s.newest % s.used + s.used - i) % s.used;
        uint64_t expected = s.newest > back ? s.newest - back : 0;
        if (!valid(r)) {
            if (!all_zero(r))
                torn++, fault(faults, "torn", i, 0, expected);
            else if (expected > 0)
                gaps++, fault(faults, "gap", i, 0, expected);
            continue;
        }
        records++;
        boots += new_boot(&s, i);
        if (r->seq % s.used != i || r->seq > expected)
            reordered++, fault(faults, "reordered", i, r->seq, expected);
        else if (r->seq != expected)
            gaps++, fault(faults, "gap", i, r->seq, expected);
    }
    c->wrong = c->wrong || gaps + reordered + torn > 0;
    json_t *out = json_object();
    tool_put(out, "writes", tool_u64(s.newest));
    tool_put(out, "newest_wall_us", tool_u64(s.newest_wall_ns / 1000));
    tool_put(out, "slots", tool_u64(s.used));
    tool_put(out, "records", tool_u64(records));
    tool_put(out, "boots", tool_u64(boots));
    tool_put(out, "gaps", tool_u64(gaps));
    tool_put(out, "reordered", tool_u64(reordered));
    tool_put(out, "torn", tool_u64(torn));
    tool_put(out, "faults", faults);
    free(s.records);
    return out;
}

/* ---------------------------------------------------------------- the history */

static int export_index(struct check *c, const char *name)
{
    for (unsigned i = 0; i < c->export_count; i++)
        if (strcmp(c->exports[i].name, name) == 0)
            return (int)i;
    if (c->export_count == EXPORTS_MAX)
        tool_die("more than %d exports in the history", EXPORTS_MAX);
    snprintf(c->exports[c->export_count].name, NAME_MAX_BYTES, "%s", name);
    return (int)c->export_count++;
}

static int by_number(const void *a, const void *b)
{
    const struct line *x = a;
    const struct line *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

static void read_history(struct check *c)
{
    FILE *f = fopen(c->history, "re");
    char text[1024], name[NAME_MAX_BYTES];
    int connection;
    if (!f)
        tool_die("cannot read %s: %s", c->history, strerror(errno));
    for (unsigned row = 1; fgets(text, sizeof(text), f); row++) {
        struct line l;
        if (!strchr(text, '\n'))
            break; /* the line that is just being written */
        if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %d %255s %" SCNu64 " %" SCNu64 " %" SCNu64 " %23s",
                   &l.number, &l.forwarded_us, &l.replied_us, &connection, name, &l.offset, &l.length, &l.seq,
                   l.status) != 9)
            tool_die("%s: line %u is no history", c->history, row);
        if ((c->prefix && strncmp(name, c->prefix, strlen(c->prefix)) != 0) || l.forwarded_us < c->since_us ||
            (c->until_us > 0 && l.forwarded_us > c->until_us))
            continue;
        l.export_index = export_index(c, name);
        if (c->line_count == c->line_size) {
            c->line_size = c->line_size > 0 ? c->line_size * 2 : 4096;
            c->lines = realloc(c->lines, c->line_size * sizeof(*c->lines));
            if (!c->lines)
                tool_die("out of memory");
        }
        c->lines[c->line_count++] = l;
    }
    fclose(f);
    if (c->line_count > 0)
        qsort(c->lines, c->line_count, sizeof(*c->lines), by_number);
}

static bool stale(const struct check *c, const struct line *l)
{
    for (unsigned i = 0; i < c->fence_count; i++)
        if (strcmp(c->fences[i].name, c->exports[l->export_index].name) == 0 && l->replied_us > c->fences[i].at_us)
            return true;
    return false;
}

static void count_line(struct export *e, const struct line *l)
{
    if (strcmp(l->status, "ok") != 0) {
        bool none = strcmp(l->status, "none") == 0;
        e->unanswered += none;
        e->refused += !none;
        return;
    }
    if (e->writes++ == 0) {
        e->first_us = l->forwarded_us;
        e->first_seq = l->seq;
    }
    e->last_us = l->replied_us;
    e->last_seq = l->seq;
}

/* For each export that came after another one: how long the earlier one went on writing. The longest of these. */
static uint64_t overlap_us(const struct check *c)
{
    uint64_t longest = 0;
    for (unsigned i = 0; i < c->export_count; i++) {
        for (unsigned k = 0; k < c->export_count; k++) {
            const struct export *before = &c->exports[i];
            const struct export *after = &c->exports[k];
            if (i == k || before->writes == 0 || after->writes == 0 || after->first_us < before->first_us)
                continue;
            uint64_t end = before->last_us < after->last_us ? before->last_us : after->last_us;
            if (end > after->first_us && end - after->first_us > longest)
                longest = end - after->first_us;
        }
    }
    return longest;
}

struct verdict {
    uint64_t conflicts, lost, stale, backwards;
    json_t *faults;
};

static void history_fault(struct check *c, struct verdict *v, const char *what, const struct line *l, const char *other)
{
    if (json_array_size(v->faults) < LISTED_MAX)
        json_array_append_new(v->faults,
                              json_pack("{s:s, s:I, s:I, s:I, s:s, s:s}", "what", what, "n", (json_int_t)l->number,
                                        "us", (json_int_t)l->forwarded_us, "seq", (json_int_t)l->seq, "export",
                                        c->exports[l->export_index].name, "other", other));
}

static void judge_lines(struct check *c, struct verdict *v)
{
    uint64_t lowest = UINT64_MAX, highest = 0;
    for (size_t i = 0; i < c->line_count; i++) {
        if (c->lines[i].seq == 0 || strcmp(c->lines[i].status, "ok") != 0)
            continue;
        lowest = c->lines[i].seq < lowest ? c->lines[i].seq : lowest;
        highest = c->lines[i].seq > highest ? c->lines[i].seq : highest;
    }
    uint64_t span = lowest <= highest ? highest - lowest + 1 : 0;
    if (span > (UINT64_C(1) << 26))
        tool_die("the history spans %" PRIu64 " numbers; narrow it with --prefix and --since", span);
    int16_t *writer = malloc(span * sizeof(*writer) + 1); /* who wrote each number first; -1: nobody */
    if (!writer)
        tool_die("out of memory");
    memset(writer, 0xff, span * sizeof(*writer));
    uint64_t top = 0;
    int top_export = -1;
    for (size_t i = 0; i < c->line_count; i++) {
        const struct line *l = &c->lines[i];
        count_line(&c->exports[l->export_index], l);
        if (strcmp(l->status, "ok") != 0)
            continue;
        if (stale(c, l)) {
            v->stale++;
            history_fault(c, v, "stale", l, "");
        }
        if (l->seq == 0)
            continue;
        int16_t *first = &writer[l->seq - lowest];
        bool again = *first >= 0 && *first != l->export_index;
        if (again || (l->seq < top && l->export_index != top_export)) {
            v->conflicts++;
            history_fault(c, v, "conflict", l, c->exports[again ? *first : top_export].name);
        } else if (l->seq < top) {
            v->backwards++;
            history_fault(c, v, "backwards", l, "");
        }
        if (*first < 0)
            *first = (int16_t)l->export_index;
        if (l->seq > top) {
            top = l->seq;
            top_export = l->export_index;
        }
    }
    for (uint64_t i = 0; i < span; i++)
        v->lost += writer[i] < 0;
    free(writer);
}

static json_t *judge_history(struct check *c)
{
    struct verdict v = {.faults = json_array()};
    json_t *exports = json_array();
    uint64_t writes = 0;
    read_history(c);
    judge_lines(c, &v);
    for (unsigned i = 0; i < c->export_count; i++) {
        const struct export *e = &c->exports[i];
        writes += e->writes;
        json_array_append_new(exports,
                              json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "export", e->name, "writes",
                                        (json_int_t)e->writes, "refused", (json_int_t)e->refused, "unanswered",
                                        (json_int_t)e->unanswered, "first_us", (json_int_t)e->first_us, "last_us",
                                        (json_int_t)e->last_us, "first_seq", (json_int_t)e->first_seq, "last_seq",
                                        (json_int_t)e->last_seq));
    }
    c->wrong = c->wrong || v.conflicts + v.lost + v.stale + v.backwards > 0;
    json_t *out = json_object();
    tool_put(out, "writes", tool_u64(writes));
    tool_put(out, "conflicts", tool_u64(v.conflicts));
    tool_put(out, "overlap_s", json_real((double)overlap_us(c) / 1e6));
    tool_put(out, "lost", tool_u64(v.lost));
    tool_put(out, "stale", tool_u64(v.stale));
    tool_put(out, "backwards", tool_u64(v.backwards));
    tool_put(out, "exports", exports);
    tool_put(out, "faults", v.faults);
    free(c->lines);
    return out;
}

int main(int argc, char **argv)
{
    static struct check c;
    argp_parse(&argp, argc, argv, 0, NULL, &c);
    json_t *out = json_object();
    if (c.volume)
        tool_put(out, "volume", judge_volume(&c));
    if (c.history)
        tool_put(out, "history", judge_history(&c));
    tool_put(out, "ok", json_boolean(!c.wrong));
    tool_print(out, stdout, false);
    return c.wrong ? 1 : 0;
}
