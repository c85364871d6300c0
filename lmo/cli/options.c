/* options.c - see options.h. */
#include "cli/options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct lmo_option_row lmo_option_rows[LMO_OPT_COUNT] = {
#define X(id, long_name, short_name, argument, kind, min, max, help) \
    [LMO_OPT_##id] = {long_name, short_name, argument, LMO_OPT_KIND_##kind, min, max, help},
    LMO_OPTIONS(X)
#undef X
};
_Static_assert(LMO_OPT_COUNT <= 128, "options are kept in a 128-bit mask");

static bool parse_uint(const char *text, uint64_t *ret)
{
    if (text[0] < '0' || text[0] > '9')
        return false; /* strtoull takes signs and blanks */
    char *end = NULL;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0')
        return false;
    *ret = n;
    return true;
}

/* "12", "0.5": digits with at most one point. strtod would also take hexadecimal, "inf" and a locale's comma. */
static bool parse_decimal(const char *text, double scale, uint64_t *ret)
{
    size_t whole = strspn(text, "0123456789");
    const char *rest = text + whole;
    size_t fraction = *rest == '.' ? strspn(rest + 1, "0123456789") : 0;
    if (whole == 0 || whole > 15 || fraction > 9 || rest[*rest == '.' ? fraction + 1 : 0] != '\0')
        return false;
    double value = 0, unit = 1;
    for (size_t i = 0; i < whole; i++)
        value = value * 10 + (text[i] - '0');
    for (size_t i = 1; i <= fraction; i++)
        value += (rest[i] - '0') * (unit /= 10);
    value = value * scale + 0.5;
    if (value >= 9e18)
        return false;
    *ret = (uint64_t)value;
    return true;
}

bool lmo_option_set(struct lmo_cli_args *args, enum lmo_option id, const char *argument, char *ret_problem,
                    unsigned problem_size)
{
    const struct lmo_option_row *row = &lmo_option_rows[id];
    uint64_t n = 0;
    bool ok = true;
    double unit = 1;
    switch (row->kind) {
    case LMO_OPT_KIND_FLAG: break;
    case LMO_OPT_KIND_TEXT: ok = argument[0] != '\0'; break;
    case LMO_OPT_KIND_UINT: ok = parse_uint(argument, &n); break;
    case LMO_OPT_KIND_SECONDS: ok = parse_decimal(argument, unit = 1000, &n); break;
    case LMO_OPT_KIND_MIB: ok = parse_decimal(argument, unit = 1048576, &n); break;
    }
    if (row->kind == LMO_OPT_KIND_TEXT && !ok) {
        snprintf(ret_problem, problem_size, "--%s: must not be empty", row->long_name);
        return false;
    }
    if (row->kind != LMO_OPT_KIND_FLAG && row->kind != LMO_OPT_KIND_TEXT && (!ok || n < row->min || n > row->max)) {
        snprintf(ret_problem, problem_size, "--%s=%.40s: must be a %snumber from %.10g to %.10g", row->long_name,
                 argument, unit > 1 ? "" : "whole ",
                 unit > 1 ? ceil((double)row->min / unit * 1000) / 1000 : (double)row->min, (double)row->max / unit);
        return false;
    }
    if (id == LMO_OPT_ADDRESS) {
        if (args->address_count == LMO_CLI_ADDRESSES_MAX) {
            snprintf(ret_problem, problem_size, "--address: at most %d", LMO_CLI_ADDRESSES_MAX);
            return false;
        }
        args->addresses[args->address_count++] = argument;
    }
    args->given |= (lmo_option_mask)1 << id;
    args->text[id] = argument;
    args->number[id] = n;
    return true;
}
