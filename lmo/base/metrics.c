/* metrics.c - see metrics.h. A histogram's buckets are kept apart and summed up when they are shown. */
#include "base/metrics.h"

#include "base/assert.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

#define BOUNDS_MAX 32

struct series {
    atomic_uint_fast64_t value; /* of a histogram: how many samples */
    atomic_uint_fast64_t sum;
    atomic_uint_fast64_t *buckets; /* bound_count of them; those above the last bound are in `value` alone */
};

struct lmo_metric {
    struct lmo_metric *next;
    struct lmo_metric_spec spec;
    uint64_t bounds[BOUNDS_MAX]; /* in the samples' unit */
    unsigned count;
    struct series *series;
};

struct lmo_metrics {
    struct lmo_metric *first, **last;
};

struct lmo_metrics *lmo_metrics_new(void)
{
    struct lmo_metrics *m = calloc(1, sizeof *m);
    if (m) {
        m->last = &m->first;
    }
    return m;
}

struct lmo_metrics *lmo_metrics_free(struct lmo_metrics *m)
{
    while (m && m->first) {
        struct lmo_metric *f = m->first;
        m->first = f->next;
        for (unsigned i = 0; i < f->count; i++) {
            free(f->series[i].buckets);
        }
        free(f->series);
        free(f);
    }
    free(m);
    return NULL;
}

struct lmo_metric *lmo_metrics_add(struct lmo_metrics *m, const struct lmo_metric_spec *spec)
{
    struct lmo_metric *f = calloc(1, sizeof *f);
    lmo_assert(f && spec->bound_count <= BOUNDS_MAX);
    f->spec = *spec;
    f->spec.scale = spec->scale > 0 ? spec->scale : 1;
    f->count = (spec->label[0] ? spec->count[0] : 1) * (spec->label[1] ? spec->count[1] : 1);
    f->series = calloc(f->count, sizeof *f->series);
    lmo_assert(f->series && f->count > 0);
    for (unsigned i = 0; i < spec->bound_count; i++) {
        f->bounds[i] = (uint64_t)(spec->bounds[i] * f->spec.scale + 0.5);
        lmo_assert(i == 0 || f->bounds[i] > f->bounds[i - 1]);
    }
    for (unsigned i = 0; spec->kind == LMO_METRIC_HISTOGRAM && i < f->count; i++) {
        f->series[i].buckets = calloc(spec->bound_count, sizeof *f->series[i].buckets);
        lmo_assert(f->series[i].buckets);
    }
    *m->last = f;
    m->last = &f->next;
    return f;
}

static struct series *series_of(const struct lmo_metric *f, unsigned a, unsigned b)
{
    if (!f || a >= (f->spec.label[0] ? f->spec.count[0] : 1) || b >= (f->spec.label[1] ? f->spec.count[1] : 1)) {
        return NULL;
    }
    return &f->series[a * (f->spec.label[1] ? f->spec.count[1] : 1) + b];
}

void lmo_metric_add(struct lmo_metric *f, unsigned a, unsigned b, uint64_t n)
{
    struct series *s = series_of(f, a, b);
    if (s) {
        atomic_fetch_add_explicit(&s->value, n, memory_order_relaxed);
    }
}

void lmo_metric_set(struct lmo_metric *f, unsigned a, unsigned b, uint64_t value)
{
    struct series *s = series_of(f, a, b);
    if (s) {
        atomic_store_explicit(&s->value, value, memory_order_relaxed);
    }
}

void lmo_metric_observe(struct lmo_metric *f, unsigned a, unsigned b, uint64_t value)
{
    struct series *s = series_of(f, a, b);
    if (!s) {
        return;
    }
    for (unsigned i = 0; i < f->spec.bound_count; i++) {
        if (value <= f->bounds[i]) {
            atomic_fetch_add_explicit(&s->buckets[i], 1, memory_order_relaxed);
            break;
        }
    }
    atomic_fetch_add_explicit(&s->sum, value, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->value, 1, memory_order_relaxed);
}

uint64_t lmo_metric_value(const struct lmo_metric *f, unsigned a, unsigned b)
{
    const struct series *s = series_of(f, a, b);
    return s ? atomic_load_explicit(&s->value, memory_order_relaxed) : 0;
}

/* ------------------------------------------------------------------ text */

static int append_value(struct lmo_buf *to, const char *value)
{
    int r = 0;
    for (const char *p = value; r == 0 && *p; p++) {
        r = *p == '\\' || *p == '"' ? lmo_buf_appendf(to, "\\%c", *p)
            : *p == '\n'            ? lmo_buf_append_str(to, "\\n")
                                    : lmo_buf_append(to, p, 1);
    }
    return r;
}

/* Name, suffix, labels and a blank. `le`: of a bucket, or NULL. */
static int append_head(const struct lmo_metric *f, unsigned n, const char *suffix, const char *le, struct lmo_buf *to)
{
    unsigned width = f->spec.label[1] ? f->spec.count[1] : 1, index[2] = {n / width, n % width};
    int r = lmo_buf_appendf(to, "%s%s", f->spec.name, suffix);
    bool open = false;
    for (unsigned i = 0; r == 0 && i < 2; i++) {
        if (f->spec.label[i]) {
            r = lmo_buf_appendf(to, "%s%s=\"", open ? "," : "{", f->spec.label[i]);
            r = r < 0 ? r : append_value(to, f->spec.values[i][index[i]]);
            r = r < 0 ? r : lmo_buf_append_str(to, "\"");
            open = true;
        }
    }
    if (r == 0 && le) {
        r = lmo_buf_appendf(to, "%sle=\"%s\"", open ? "," : "{", le);
        open = true;
    }
    return r < 0 ? r : lmo_buf_append_str(to, open ? "} " : " ");
}

static int append_number(const struct lmo_metric *f, uint64_t value, struct lmo_buf *to)
{
    return f->spec.scale > 1 ? lmo_buf_appendf(to, "%.9g\n", (double)value / f->spec.scale)
                             : lmo_buf_appendf(to, "%" PRIu64 "\n", value);
}

static int append_histogram(const struct lmo_metric *f, unsigned n, struct lmo_buf *to)
{
    const struct series *s = &f->series[n];
    uint64_t count = atomic_load_explicit(&s->value, memory_order_relaxed), below = 0;
    int r = 0;
    char le[32];
    for (unsigned i = 0; r == 0 && i < f->spec.bound_count; i++) {
        below += atomic_load_explicit(&s->buckets[i], memory_order_relaxed);
        (void)snprintf(le, sizeof le, "%g", f->spec.bounds[i]);
        r = append_head(f, n, "_bucket", le, to);
        r = r < 0 ? r : lmo_buf_appendf(to, "%" PRIu64 "\n", below);
    }
    count = count < below ? below : count; /* a sample that is being taken right now */
    r = r < 0 ? r : append_head(f, n, "_bucket", "+Inf", to);
    r = r < 0 ? r : lmo_buf_appendf(to, "%" PRIu64 "\n", count);
    r = r < 0 ? r : append_head(f, n, "_sum", NULL, to);
    r = r < 0 ? r : append_number(f, atomic_load_explicit(&s->sum, memory_order_relaxed), to);
    r = r < 0 ? r : append_head(f, n, "_count", NULL, to);
    return r < 0 ? r : lmo_buf_appendf(to, "%" PRIu64 "\n", count);
}

int lmo_metrics_render(const struct lmo_metrics *m, struct lmo_buf *to)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    int r = 0;
    for (const struct lmo_metric *f = m->first; r == 0 && f; f = f->next) {
        r = lmo_buf_appendf(to, "# HELP %s %s\n# TYPE %s %s\n", f->spec.name, f->spec.help, f->spec.name,
                            kinds[f->spec.kind]);
        for (unsigned n = 0; r == 0 && n < f->count; n++) {
            uint64_t value = atomic_load_explicit(&f->series[n].value, memory_order_relaxed);
            bool unseen = value == 0 && f->spec.label[0] && f->spec.kind != LMO_METRIC_GAUGE;
            if (unseen) {
                continue;
            }
            if (f->spec.kind == LMO_METRIC_HISTOGRAM) {
                r = append_histogram(f, n, to);
            } else {
                r = append_head(f, n, "", NULL, to);
                r = r < 0 ? r : append_number(f, value, to);
            }
        }
    }
    return r;
}
