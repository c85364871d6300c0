/* audit.c - who changed what: every request that is not a GET leaves two lines, before it is looked at and when it is
 * answered, refused ones included. The request's id is the client's X-Request-Id, or made here; the answer carries
 * it. */
#include "api/internal.h"

#include "base/id.h"
#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

#define REQUEST_ID "X-Request-Id"

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
    const struct lmo_identity *peer = lmo_http_peer(req);
    LMO_COPY(l.request, lmo_http_id(req));
    snprintf(l.principal, sizeof(l.principal), "%s:%s", lmo_role_name(peer->role), peer->name);
    LMO_COPY(l.remote, lmo_http_remote(req));
    snprintf(l.action, sizeof(l.action), "%s %.200s", lmo_http_method(req), lmo_http_path(req));
    LMO_COPY(l.outcome, outcome);
    find_object(lmo_http_path(req), &l);
    return l;
}

bool audit_asked(struct lmo_api *api, struct lmo_http_request *req)
{
    char made[LMO_ID_MAX];
    const char *id = lmo_http_header(req, REQUEST_ID);
    if (!audited(req)) {
        return true;
    }
    if (!id || !lmo_name_valid(id)) {
        lmo_ulid_generate(made);
        id = made;
    }
    lmo_http_set_tag(req, api->engine, id);
    (void)lmo_http_set_header(req, REQUEST_ID, lmo_http_id(req));
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
    const char *migration = lmo_http_query(req, "migration"), *host = lmo_http_query(req, "host");
    uint64_t limit = LIST_DEFAULT, before = 0;
    (void)params;
    if (migration && !lmo_ulid_valid(migration)) {
        refuse(req, LMO_E_INVALID, "migration", "migration: must be the id of a migration");
    } else if (host && !lmo_name_valid(host)) {
        refuse(req, LMO_E_INVALID, "host", "host: must be a name");
    } else if (read_number(req, "limit", 1, LIST_MAX, &limit) && read_number(req, "before", 1, INT64_MAX, &before)) {
        asked(req, lmo_engine_audit_list(((struct lmo_api *)api)->engine, migration ? migration : "", host ? host : "",
                                         before, (unsigned)limit, reply_to_request, req));
    }
}
