/* placement.h - which hosts can take a guest, why the others cannot, and which of them is best.
 *
 * Filter, then score. Pure: a snapshot goes in, verdicts come out. Weights, formulas and how to read them:
 * docs/placement.md.
 *
 * Memory is counted twice and the smaller room is believed: free as measured, and total less what its guests and those
 * on their way there may grow to. Both less what is to be kept. So a guest that leaves makes room for exactly what it could
 * have used, and a host whose guests have not touched their memory yet does not look empty.
 *
 * N+1 (`spare_hosts` 1): if the host that carries most were lost, its guests could be placed on the others. Checked as a real
 * placement (best fit, largest first, with every rule of the filter that is a need of the guest and hard anti-affinity),
 * for each kind of memory and the host that has given most of it. A host that is down, cordoned, draining or being
 * emptied is nobody's refuge. Best fit is a heuristic: it may say no where a cleverer packing exists, never yes where
 * none does.
 *
 * Invariants:
 *  P1  A host that is down, cordoned or draining is never a destination; nor is the host where the guest is.
 *  P2  After the move no pool of the destination is over-committed: what is to be kept stays free.
 *  P3  With spare_hosts, N+1 holds after the move.
 *  P4  No two members of a hard anti-affinity group get onto one host; a member of a hard affinity group goes where the
 *      others are that stay.
 *  P5  Everything is integer arithmetic and ties are broken by name: same snapshot, same answer, whatever the order of the
 *      arrays.
 *
 * Ownership: the caller's arrays; scratch memory of lmo_place_scratch bytes, aligned as malloc's, is the caller's and
 * may be thrown away when the last call on that state has returned. */
#ifndef LMO_CORE_PLACEMENT_H
#define LMO_CORE_PLACEMENT_H

#include "core/fleet.h"

#include <stddef.h>

#define LMO_SPARE_HOSTS_MAX 3 /* hosts that may be lost at the same time */

/* ------------------------------------------------------------------ how a guest moves */

enum lmo_way {
    LMO_WAY_NONE = 0, /* not at all: the reason says why */
    LMO_WAY_LIVE,
    LMO_WAY_OFFLINE, /* it is shut off: only its definition goes */
    LMO_WAY_BLOCK,   /* live, and its local disks are copied */
};
const char *lmo_way_text(int v);

/* Why not. Stable words (lmo_not_text): they are shown by the API. The first group says it of the guest, wherever it
 * would go; the second of one host; the third of a plan. */
enum lmo_not {
    LMO_NOT_REJECTED = 0,
    /* the guest */
    LMO_NOT_MIGRATING, /* one migration per guest */
    LMO_NOT_LEASED,
    LMO_NOT_BLOCKED, /* blockers, and its policy does not get round them */
    LMO_NOT_STATE,   /* how it stands is not known, or nothing that can be moved */
    /* the host */
    LMO_NOT_HERE, /* it is there already */
    LMO_NOT_DOWN,
    LMO_NOT_CORDONED,
    LMO_NOT_DRAINING,
    LMO_NOT_AVOIDED, /* it refused this guest before, says the caller */
    LMO_NOT_LINK,    /* no migration link */
    LMO_NOT_SLOTS,   /* it takes no migrations at all */
    LMO_NOT_CPU,
    LMO_NOT_CPU_UNKNOWN,
    LMO_NOT_MACHINE,
    LMO_NOT_SERVICE,
    LMO_NOT_FABRIC,
    LMO_NOT_LABEL,
    LMO_NOT_ANTI_AFFINITY,
    LMO_NOT_AFFINITY,
    LMO_NOT_MEMORY_UNKNOWN,
    LMO_NOT_MEMORY,
    LMO_NOT_HUGE_PAGES,
    LMO_NOT_SPARE, /* N+1 would not be kept */
    /* a plan */
    LMO_NOT_NOWHERE, /* every host rejects it: `text` has the commonest reasons */
    LMO_NOT_OVER,    /* the plan was full: fewer hosts at a time */
    LMO_NOT_COUNT
};
const char *lmo_not_text(int v);         /* NULL for no such value */
int lmo_not_from_text(const char *text); /* -1 for a text that is none */

/* ------------------------------------------------------------------ verdicts */

/* Each part is 0 (worst) to 1000; the score is the sum of part x weight. */
enum lmo_score_part {
    LMO_SCORE_ANTI_AFFINITY = 0, /* soft ones: fewer fellow members there */
    LMO_SCORE_AFFINITY,          /* soft ones: more fellow members there */
    LMO_SCORE_BYTES,             /* fewest bytes to move in all: 1000 unless the move causes others */
    LMO_SCORE_BALANCE,           /* room left after the move: the scarcest of memory, huge pages, threads */
    LMO_SCORE_SPREAD,            /* fewer guests on their way there */
    LMO_SCORE_PARTS
};
const char *lmo_score_part_text(int v);
uint32_t lmo_score_weight(enum lmo_score_part p);

struct lmo_verdict {
    uint32_t host;
    enum lmo_not why; /* LMO_NOT_REJECTED (0): it can take the guest */
    uint32_t score;   /* 0 if rejected */
    uint32_t parts[LMO_SCORE_PARTS];
    char text
        [LMO_TEXT_MAX]; /* one sentence, figures included: "hv2: needs 4.0 GiB, 2.1 GiB free after 1.0 GiB is kept" */
};

struct lmo_place_options {
    uint32_t spare_hosts;  /* 0: not looked at; 1: N+1; at most LMO_SPARE_HOSTS_MAX */
    const uint32_t *avoid; /* hosts that are not to be taken, for example because they refused; may be NULL */
    uint32_t avoid_count;
};

struct lmo_place; /* the snapshot, added up; lives in the caller's scratch memory */

/* Bytes of scratch memory for this snapshot. */
size_t lmo_place_scratch(const struct lmo_fleet *f);
/* Adds the snapshot up, once for any number of questions. Time: hosts + guests. Returns what lives in `scratch`. */
struct lmo_place *lmo_place_begin(const struct lmo_fleet *f, const struct lmo_place_options *o, void *scratch);

/* How this guest would be moved, whatever the destination. For LMO_WAY_NONE *ret_why and the sentence say why not. `ret_why`
 * and `text` may be NULL; `size` is the room in `text`. */
enum lmo_way lmo_place_way(const struct lmo_fleet *f, uint32_t guest, enum lmo_not *ret_why, char *text, size_t size);
/* The same when it is known whether a migration of it is under way: no search through the moves. */
enum lmo_way lmo_place_way_of(const struct lmo_fleet_guest *g, bool migrating, enum lmo_not *ret_why, char *text,
                              size_t size);

/* One host for one guest. Of the guest's own obstacles (first group of lmo_not) nothing is said here. */
void lmo_place_judge(struct lmo_place *p, uint32_t guest, uint32_t host, struct lmo_verdict *ret);
/* Every host, the best first: host_count verdicts, those that can take it by score, then the others by name. */
void lmo_place_explain(struct lmo_place *p, uint32_t guest, struct lmo_verdict *ret);
/* The best host, or LMO_NONE; ret (may be NULL) is its verdict, or LMO_NOT_NOWHERE with the commonest reasons. */
uint32_t lmo_place_best(struct lmo_place *p, uint32_t guest, struct lmo_verdict *ret);
/* Does N+1 hold as things stand? For false `text` says which host's guests would find no place, and the first of them. */
bool lmo_place_spare(struct lmo_place *p, char *text, size_t size);

#endif
