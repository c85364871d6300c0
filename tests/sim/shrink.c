/* shrink.c - see shrink.h. */
#include "shrink.h"

#include <ctype.h>
#include <string.h>

/* The words alone: names and numbers are those of whichever guest, write or migration it was this time. */
static size_t words(const char *text, char *ret, size_t size)
{
    size_t n = 0;
    bool number = false;
    for (; *text && n + 1 < size; text++) {
        if (*text == '(') {
            break;
        }
        number = isdigit((unsigned char)*text) != 0 || (number && isalnum((unsigned char)*text));
        if (!number) {
            ret[n++] = *text;
        }
    }
    ret[n] = '\0';
    return n;
}

bool shrink_same(const char *a, const char *b)
{
    char x[256], y[256];
    (void)words(a, x, sizeof x);
    (void)words(b, y, sizeof y);
    return strncmp(x, y, 40) == 0;
}

static bool still_fails(const struct plan *p, const char *violation, struct run_result *result)
{
    static struct run_result r;
    run_plan(p, &r);
    if (!r.failed || !shrink_same(r.violation, violation)) {
        return false;
    }
    *result = r;
    return true;
}

static void drop_fault(struct plan *p, unsigned i)
{
    memmove(&p->faults[i], &p->faults[i + 1], (p->fault_count - i - 1) * sizeof p->faults[0]);
    p->fault_count--;
}

static void drop_request(struct plan *p, unsigned i)
{
    memmove(&p->requests[i], &p->requests[i + 1], (p->request_count - i - 1) * sizeof p->requests[0]);
    p->request_count--;
}

static bool guest_is_used(const struct plan *p, const char *name)
{
    for (unsigned i = 0; i < p->request_count; i++) {
        if (strcmp(p->requests[i].guest, name) == 0) {
            return true;
        }
    }
    return false;
}

static void drop_guest(struct plan *p, unsigned i)
{
    memmove(&p->guests[i], &p->guests[i + 1], (p->guest_count - i - 1) * sizeof p->guests[0]);
    p->guest_count--;
}

unsigned shrink_plan(struct plan *p, struct run_result *result, unsigned runs_max)
{
    static struct plan candidate;
    char violation[sizeof result->violation];
    memcpy(violation, result->violation, sizeof violation);
    unsigned runs = 0;
    bool smaller = true;
    while (smaller && runs < runs_max) {
        smaller = false;
        for (unsigned i = p->fault_count; i-- > 0 && runs < runs_max;) {
            candidate = *p;
            drop_fault(&candidate, i);
            runs++;
            if (still_fails(&candidate, violation, result)) {
                *p = candidate;
                smaller = true;
            }
        }
        for (unsigned i = p->request_count; i-- > 0 && runs < runs_max;) {
            candidate = *p;
            drop_request(&candidate, i);
            runs++;
            if (still_fails(&candidate, violation, result)) {
                *p = candidate;
                smaller = true;
            }
        }
        for (unsigned i = p->guest_count; i-- > 0 && runs < runs_max;) {
            if (p->guest_count == 1 || guest_is_used(p, p->guests[i].name)) {
                continue;
            }
            candidate = *p;
            drop_guest(&candidate, i);
            runs++;
            if (still_fails(&candidate, violation, result)) {
                *p = candidate;
                smaller = true;
            }
        }
        for (unsigned i = 0; i < p->request_count && runs < runs_max; i++) {
            if (p->requests[i].cancel_after_ms == 0) {
                continue;
            }
            candidate = *p;
            candidate.requests[i].cancel_after_ms = 0;
            runs++;
            if (still_fails(&candidate, violation, result)) {
                *p = candidate;
                smaller = true;
            }
        }
    }
    return runs;
}
