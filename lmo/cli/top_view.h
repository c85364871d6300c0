/* top_view.h - one picture of the fleet as lines: what `lmo top` shows. Pure: JSON, a view and a size in, lines out. */
#ifndef LMO_CLI_TOP_VIEW_H
#define LMO_CLI_TOP_VIEW_H

#include "cli/format.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What was last heard. */
struct lmo_top_model {
    json_t *hosts, *migrations, *drains; /* owned: the coordinator's answers; NULL: not known */
    uint64_t at_ms;                      /* when, ms since 1970; 0: nothing was heard yet */
    char problem[200];                   /* why nothing newer was; "" */
};
void lmo_top_model_release(struct lmo_top_model *m);

/*      enumerator  name */
#define LMO_TOP_SORTS(X) X(AGE, "age") X(PROGRESS, "progress") X(ETA, "eta") X(RATE, "rate") X(NAME, "name")
enum lmo_top_sort {
#define X(name, text) LMO_TOP_BY_##name,
    LMO_TOP_SORTS(X)
#undef X
        LMO_TOP_SORT_COUNT
};
const char *lmo_top_sort_name(enum lmo_top_sort sort);
/* LMO_TOP_SORT_COUNT: no such order. */
enum lmo_top_sort lmo_top_sort_from_name(const char *name);

struct lmo_top_view {
    const char *where; /* the coordinator, for the heading; borrowed */
    enum lmo_top_sort sort;
    char filter[64]; /* only lines with this in them; "" all */
    bool editing;    /* the filter is being typed */
    bool paused;
    bool interactive;       /* keys are understood: the last line says which */
    size_t offset;          /* migrations above the first one that is shown; corrected by lmo_top_draw */
    unsigned width, height; /* 0: any */
    uint64_t now_ms;
};

typedef void lmo_top_line_fn(void *arg, enum lmo_color color, const char *text);
/* Calls fn with each line, from the top, at most view->height of them, none wider than view->width. */
void lmo_top_draw(const struct lmo_top_model *m, struct lmo_top_view *view, lmo_top_line_fn *fn, void *arg);

#endif
