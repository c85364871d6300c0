/* audit.c - who changed what: every request that is not a GET leaves two lines, before it is looked at and when it is
 * answered, refused ones included. The request's id is the client's X-Request-Id, or made by the listener; every answer
 * carries it. */
#include "api/internal.h"

#include "base/id.h"
#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

static bool audited(const struct lmo_http_request *req)
{
    return strcmp(lmo_http_method(req), "GET") != 0;
}

/* "/v1/migrations/ID/cancel", "/v1/hosts/NAME": what the request is about. */
static void find_object(const char *path, struct lmo_audit_line *l)
{
    static const char migrations[] = "/v1/migrations/", hosts[] = "/v1/hosts/";
    char word[LMO_NAME_MAX];
    const char *at = strncmp(path, migrations, sizeof(migrations) - 1) == 0 ? path + sizeof(migrations) - 1
                     : strncmp(path, hosts, sizeof(hosts) - 1) == 0         ? path + sizeof(hosts) - 1
                                                                            : "";
    snprintf(word, sizeof(word), "%.*s", (int)strcspn(at, "/"), at);
    if (lmo_ulid_valid(word)) {
        LMO_COPY(l->migration, word);
    } else if (path[4] == 'h' && lmo_name_valid(word)) {
        LMO_COPY(l->host, word);
    }
}

static struct lmo_audit_line line_of(const struct lmo_http_request *req, const char *outcome)
{
    struct lmo_audit_line l = {0};
    LMO_COPY(l.request, lmo_http_id(req));
    principal_of(req, l.principal, sizeof(l.principal));
    LMO_COPY(l.remote, lmo_http_remote(req));
    snprintf(l.action, sizeof(l.action), "%s %.200s", lmo_http_method(req), lmo_http_path(req));
    LMO_COPY(l.outcome, outcome);
    find_object(lmo_http_path(req), &l);
    return l;
}

void principal_of(const struct lmo_http_request *req, char *ret, size_t size)
{
    const struct lmo_identity *peer = lmo_http_peer(req);
    snprintf(ret, size, "%s:%s%s", lmo_role_name(peer->role), peer->by_token ? "token/" : "", peer->name);
}

bool audit_asked(struct lmo_api *api, struct lmo_http_request *req)
{
    char made[LMO_ID_MAX];
    const char *id = lmo_http_id(req);
    if (!id[0]) { /* a listener that makes none */
        lmo_ulid_generate(made);
        id = made;
    }
    lmo_http_set_tag(req, api->engine, id);
    if (!audited(req)) {
        return true;
    }
    struct lmo_audit_line l = line_of(req, "asked");
    return lmo_engine_audit(api->engine, &l) == 0;
}

void audit_answered(const struct lmo_http_request *req, int code, const char *location, const char *detail)
{
    struct lmo_engine *e = lmo_http_owner(req);
    if (!audited(req) || !e) {
        return;
    }
    struct lmo_audit_line l = line_of(req, lmo_err_name(code));
    if (location && location[0]) {
        find_object(location, &l); /* of what was made */
    }
    LMO_COPY(l.detail, detail);
    if (lmo_engine_audit(e, &l) < 0) {
        lmo_log(LMO_LOG_ERROR, "outcome not in the audit trail", "request=%s outcome=%s", l.request, l.outcome);
    }
}

void audit_list(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    static const char *const filters[] = {"migration", "host", "principal", "since_ms", "until_ms", "before", NULL};
    const char *migration = lmo_http_query(req, "migration"), *principal = lmo_http_query(req, "principal");
    char host[LMO_NAME_MAX];
    struct lmo_page page;
    struct lmo_audit_filter f = {.migration = migration ? migration : "", .host = host, .principal = principal ? principal : ""};
    uint64_t before = 0;
    (void)params;
    if (migration && !lmo_ulid_valid(migration)) {
        refuse(req, LMO_E_INVALID, "migration", "migration: must be the id of a migration");
    } else if (principal && (!principal[0] || strlen(principal) >= LMO_NAME_MAX + 32)) {
        refuse(req, LMO_E_INVALID, "principal", "principal: must be role:name, as in the lines");
    } else if (read_name(req, "host", host, sizeof(host)) && read_period(req, &f.since_ms, &f.until_ms) &&
               read_number(req, "before", 1, INT64_MAX, &before) && read_page(req, "audit", filters, &page)) {
        asked(req,
              lmo_engine_audit_list(((struct lmo_api *)api)->engine, &f, before, &page, reply_to_request, req));
    }
}
