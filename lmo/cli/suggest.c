/* suggest.c - see suggest.h. The distance is Damerau and Levenshtein's with adjacent swaps ("optimal string alignment"). */
#include "cli/suggest.h"
#include "cli/format.h"

#include <ctype.h>
#include <string.h>

#define N LMO_SUGGEST_WORD_MAX

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static int folded(char c)
{
    return tolower((unsigned char)c);
}

unsigned lmo_suggest_distance(const char *a, const char *b)
{
    unsigned rows[3][N + 1];
    size_t la = strnlen(a, N - 1), lb = strnlen(b, N - 1);
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= lb; j++)
        above[j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= lb; j++) {
            unsigned cost = folded(a[i - 1]) != folded(b[j - 1]);
            row[j] = least(least(above[j] + 1, row[j - 1] + 1), above[j - 1] + cost);
            if (i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) && folded(a[i - 2]) == folded(b[j - 1]))
                row[j] = least(row[j], before[j - 2] + 1);
        }
        unsigned *free_row = before;
        before = above;
        above = row;
        row = free_row;
    }
    return above[lb];
}

void lmo_suggest_add(struct lmo_suggest *s, const char *candidate)
{
    size_t len = strlen(s->word);
    unsigned allowed = len < 6 ? 1 : len < 9 ? 2 : 3;
    unsigned d = lmo_suggest_distance(s->word, candidate);
    bool beginning = len >= 3 && strncmp(candidate, s->word, len) == 0;
    if ((d > allowed && !beginning) || d >= len)
        return;
    d = beginning ? 1 : d;
    for (size_t i = 0; i < s->count; i++) {
        if (strncmp(s->near[i], candidate, N - 1) == 0)
            return;
    }
    size_t at = 0;
    while (at < s->count && s->distance[at] <= d)
        at++;
    if (at == LMO_SUGGEST_MAX)
        return;
    if (s->count < LMO_SUGGEST_MAX)
        s->count++;
    for (size_t i = s->count - 1; i > at; i--) {
        s->distance[i] = s->distance[i - 1];
        memcpy(s->near[i], s->near[i - 1], N);
    }
    s->distance[at] = d;
    lmo_format_safe(candidate, s->near[at], N);
}

const char *lmo_suggest_text(const struct lmo_suggest *s, const char *before, char buf[LMO_SUGGEST_TEXT_MAX])
{
    size_t used = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < s->count; i++) {
        const char *join = i == 0 ? " Did you mean " : i + 1 == s->count ? " or " : ", ";
        used += (size_t)snprintf(buf + used, LMO_SUGGEST_TEXT_MAX - used, "%s%s%s", join, before, s->near[i]);
    }
    if (s->count > 0)
        snprintf(buf + used, LMO_SUGGEST_TEXT_MAX - used, "?");
    return buf;
}
