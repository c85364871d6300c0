/* identity.c - see identity.h. */
#include "http/identity.h"
#include "base/id.h"

#include <stdio.h>
#include <string.h>

static const char *const role_names[] = {[LMO_ROLE_NONE] = "none",
#define X(name, text) [LMO_ROLE_##name] = (text),
                                         LMO_ROLES(X)
#undef X
};
#define ROLE_COUNT (sizeof role_names / sizeof role_names[0])

const char *lmo_role_name(enum lmo_role role)
{
    return (size_t)role < ROLE_COUNT ? role_names[role] : role_names[LMO_ROLE_NONE];
}

enum lmo_role lmo_role_from_name(const char *text)
{
    for (size_t i = 1; text && i < ROLE_COUNT; i++) {
        if (strcmp(role_names[i], text) == 0)
            return (enum lmo_role)i;
    }
    return LMO_ROLE_NONE;
}

int lmo_identity_parse_urn(const char *urn, struct lmo_identity *ret_identity, struct lmo_err *err)
{
    static const char prefix[] = "urn:lmo:";
    if (strncmp(urn, prefix, sizeof prefix - 1) != 0)
        return lmo_fail(err, LMO_E_INVALID, "'%.60s' does not begin with %s", urn, prefix);
    const char *rest = urn + sizeof prefix - 1, *colon = strchr(rest, ':');
    char text[32] = "";
    if (colon && (size_t)(colon - rest) < sizeof text)
        memcpy(text, rest, (size_t)(colon - rest));
    enum lmo_role role = lmo_role_from_name(text);
    if (role == LMO_ROLE_NONE)
        return lmo_fail(err, LMO_E_INVALID, "'%.60s' has no known role: urn:lmo:<role>:<name>", urn);
    if (!lmo_name_valid(colon + 1))
        return lmo_fail(err, LMO_E_INVALID, "'%.100s' has no valid name: urn:lmo:<role>:<name>", urn);
    ret_identity->role = role;
    memcpy(ret_identity->name, colon + 1, strlen(colon + 1) + 1);
    return 0;
}

void lmo_identity_format_urn(enum lmo_role role, const char *name, char ret_urn[LMO_URN_MAX])
{
    snprintf(ret_urn, LMO_URN_MAX, "urn:lmo:%s:%.*s", lmo_role_name(role), LMO_NAME_MAX - 1, name);
}
