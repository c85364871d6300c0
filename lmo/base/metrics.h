/* metrics.h - counters, gauges and histograms in the Prometheus text format (version 0.0.4).
 *
 * A family is made once, with every series that it will ever have: the label values are a fixed list, so that taking a sample
 * allocates nothing, locks nothing (relaxed atomics), and cannot grow the output. Any thread may sample; a rendering sees each
 * number whole, not all of one instant. Names and help are borrowed and live as long as the registry. */
#ifndef LMO_BASE_METRICS_H
#define LMO_BASE_METRICS_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lmo_metrics; /* a registry */
struct lmo_metric;  /* a family */

enum lmo_metric_kind { LMO_METRIC_COUNTER, LMO_METRIC_GAUGE, LMO_METRIC_HISTOGRAM };

struct lmo_metric_spec {
    const char *name; /* "lmo_phase_duration_seconds"; counters end in _total */
    const char *help;
    enum lmo_metric_kind kind;
    /* At most two labels; label NULL: none. */
    const char *label[2];
    const char *const *values[2]; /* the values of each, */
    unsigned count[2];            /* and how many */
    /* HISTOGRAM: ascending upper bounds, +Inf not among them; in the unit of the name. */
    const double *bounds;
    unsigned bound_count;
    /* What a sample's whole number is divided by for the output: 1e6 for microseconds shown as seconds. 0: 1. */
    double scale;
};

struct lmo_metrics *lmo_metrics_new(void); /* NULL without memory */
struct lmo_metrics *lmo_metrics_free(struct lmo_metrics *m);
/* Owned by the registry. Aborts without memory: made at the start. Families are made before other threads sample or render. */
struct lmo_metric *lmo_metrics_add(struct lmo_metrics *m, const struct lmo_metric_spec *spec);

/* `a`, `b`: indices of the label values; 0 where there is no label. One out of range is left out. family NULL: nothing. */
void lmo_metric_add(struct lmo_metric *family, unsigned a, unsigned b, uint64_t n);
void lmo_metric_set(struct lmo_metric *family, unsigned a, unsigned b, uint64_t value);
void lmo_metric_observe(struct lmo_metric *family, unsigned a, unsigned b, uint64_t value);
uint64_t lmo_metric_value(const struct lmo_metric *family, unsigned a,
                          unsigned b); /* of a histogram: how many samples */

/* Appends the whole text. Counters and histograms with labels show a series only once it has a sample. */
int lmo_metrics_render(const struct lmo_metrics *m, struct lmo_buf *to) LMO_MUST_CHECK;

#endif
