/* drain_table.c - the tables of core/drain.h as functions. */
#include "core/drain_internal.h"

#include <string.h>

struct row {
    const char *text;
    uint32_t successors, attributes;
};

static const struct row drains[] = {
#define X(name, text, successors, attributes) [LMO_DRAIN_##name] = {text, successors, attributes},
    LMO_DRAIN_STATES(X)
#undef X
};
static const struct row guests[] = {
#define X(name, text, successors, attributes) [LMO_DG_##name] = {text, successors, attributes},
    LMO_DRAIN_GUEST_STATES(X)
#undef X
};
static const struct row hosts[] = {
#define X(name, text, successors, attributes) [LMO_DH_##name] = {text, successors, attributes},
    LMO_DRAIN_HOST_STATES(X)
#undef X
};

static int find(const struct row *rows, int count, const char *text)
{
    int i = 0;
    while (i < count && strcmp(rows[i].text, text) != 0) {
        i++;
    }
    return i;
}

const char *lmo_drain_state_text(enum lmo_drain_state s)
{
    return s < LMO_DRAIN_STATE_COUNT ? drains[s].text : NULL;
}

enum lmo_drain_state lmo_drain_state_from_text(const char *text)
{
    return (enum lmo_drain_state)find(drains, LMO_DRAIN_STATE_COUNT, text);
}

bool lmo_drain_may_follow(enum lmo_drain_state from, enum lmo_drain_state to)
{
    return (drains[from].successors >> to & 1U) != 0;
}

bool lmo_drain_is(enum lmo_drain_state s, uint32_t attribute)
{
    return (drains[s].attributes & attribute) != 0;
}

const char *lmo_drain_guest_state_text(enum lmo_drain_guest_state s)
{
    return s < LMO_DG_COUNT ? guests[s].text : NULL;
}

enum lmo_drain_guest_state lmo_drain_guest_state_from_text(const char *text)
{
    return (enum lmo_drain_guest_state)find(guests, LMO_DG_COUNT, text);
}

bool lmo_drain_guest_may_follow(enum lmo_drain_guest_state from, enum lmo_drain_guest_state to)
{
    return (guests[from].successors >> to & 1U) != 0;
}

bool lmo_drain_guest_is(enum lmo_drain_guest_state s, uint32_t attribute)
{
    return (guests[s].attributes & attribute) != 0;
}

const char *lmo_drain_host_state_text(enum lmo_drain_host_state s)
{
    return s < LMO_DH_COUNT ? hosts[s].text : NULL;
}

enum lmo_drain_host_state lmo_drain_host_state_from_text(const char *text)
{
    return (enum lmo_drain_host_state)find(hosts, LMO_DH_COUNT, text);
}

bool lmo_drain_host_may_follow(enum lmo_drain_host_state from, enum lmo_drain_host_state to)
{
    return (hosts[from].successors >> to & 1U) != 0;
}

bool lmo_drain_host_is(enum lmo_drain_host_state s, uint32_t attribute)
{
    return (hosts[s].attributes & attribute) != 0;
}
