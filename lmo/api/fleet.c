/* fleet.c - what people say about hosts and guests: cordon and labels, policies and leases; and why a guest goes where. */
#include "api/internal.h"

#include "base/id.h"
#include "base/json.h"
#include "engine/drains.h"

#include <stdio.h>
#include <string.h>

static struct lmo_engine *engine_of(void *api)
{
    return ((struct lmo_api *)api)->engine;
}

static const char *named(struct lmo_http_request *req, const struct lmo_http_params *params, const char *what)
{
    if (!lmo_name_valid(params->value[0])) {
        refuse(req, LMO_E_NOT_FOUND, what, "no %s can have that name", strcmp(what, "vm") == 0 ? "guest" : "host");
        return NULL;
    }
    return params->value[0];
}

/* ------------------------------------------------------------------ hosts */

struct cordon_body {
    char reason[LMO_TEXT_MAX];
};
static const struct lmo_field cordon_fields[] = {LMO_F_TEXT(cordon_body, reason, 0)};
static const struct lmo_table cordon_table = LMO_TABLE(cordon_fields);

static void set_cordon(void *api, struct lmo_http_request *req, const struct lmo_http_params *params, bool on)
{
    struct cordon_body body = {0};
    char principal[LMO_NAME_MAX + 32];
    const char *name = named(req, params, "name");
    if (!name || !read_body(req, &cordon_table, &body, NULL)) {
        return;
    }
    principal_of(req, principal, sizeof(principal));
    asked(req, lmo_engine_host_cordon(engine_of(api), name, on, body.reason, principal, reply_to_request,
                                      req));
}

void host_cordon(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    set_cordon(api, req, params, true);
}

void host_uncordon(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    set_cordon(api, req, params, false);
}

/* {"rack":"3"} -> "rack=3 ". False: refused. */
static bool read_labels(struct lmo_http_request *req, const json_t *labels, char *ret, size_t size)
{
    size_t used = 0;
    const char *key;
    json_t *value;
    ret[0] = '\0';
    if (labels && !json_is_object(labels)) {
        refuse(req, LMO_E_INVALID, "labels", "labels: must be an object of texts");
        return false;
    }
    json_object_foreach((json_t *)labels, key, value)
    {
        int n = json_is_string(value) ? snprintf(ret + used, size - used, "%s=%s ", key, json_string_value(value)) : -1;
        if (n < 0 || used + (size_t)n >= size) {
            refuse(req, LMO_E_INVALID, "labels",
                   n < 0 ? "labels: '%.40s' must be a text" : "labels: too many of them at '%.40s'", key);
            return false;
        }
        used += (size_t)n;
    }
    return true;
}

static const struct lmo_table labels_table = {0}; /* nothing beside `labels` */

/* Ends the request if the call did not take it over. */
static void asked_or_refused(struct lmo_http_request *req, int result, const struct lmo_err *err)
{
    if (result < 0 && err->text[0]) {
        refuse_error(req, err);
    } else {
        asked(req, result);
    }
}

void host_labels(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    LMO_AUTO_JSON json_t *root = NULL;
    LMO_AUTO_JSON json_t *labels = NULL;
    char body;
    struct lmo_err err = {0};
    char text[1024];
    const char *name = named(req, params, "name");
    if (!name || !read_raw_body(req, &root)) {
        return;
    }
    labels = json_incref(json_object_get(root, "labels"));
    if (!labels) {
        refuse(req, LMO_E_INVALID, "labels", "labels: required; {} takes all of them away");
        return;
    }
    (void)json_object_del(root, "labels");
    if (decode_body(req, &labels_table, root, &body) && read_labels(req, labels, text, sizeof text)) {
        asked_or_refused(req,
                         lmo_engine_host_labels(engine_of(api), name, text, reply_to_request, req, &err),
                         &err);
    }
}

/* ------------------------------------------------------------------ guests */

void vm_explain(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *vm = named(req, params, "vm"), *keep = lmo_http_query(req, "keep_free");
    uint32_t spare = 0;
    if (vm && read_keep_free(req, keep ? keep : "", &spare)) {
        lmo_http_set_timeout(req, REPLY_MAX_MS);
        asked(req, lmo_engine_vm_explain(engine_of(api), vm, spare, reply_to_request, req));
    }
}

static const char *uuid_of(struct lmo_http_request *req, const struct lmo_http_params *params)
{
    if (!lmo_uuid_valid(params->value[0])) {
        refuse(req, LMO_E_NOT_FOUND, "vm",
               "policies and leases belong to a guest's UUID: 8-4-4-4-12 hexadecimal digits in lower case");
        return NULL;
    }
    return params->value[0];
}

struct policy_body {
    char unmovable[16];
};
static const struct lmo_field policy_fields[] = {LMO_F_TEXT(policy_body, unmovable, 0)};
static const struct lmo_table policy_table = LMO_TABLE(policy_fields);

static bool read_group(struct lmo_http_request *req, const json_t *o, size_t i, struct lmo_vm_policy *p)
{
    static const char *const known[] = {"name", "kind", "hard", NULL};
    char kind[16] = "apart";
    bool hard = false;
    struct lmo_err err = {0};
    unsigned n = p->group_count;
    int r = lmo_json_known(o, known, &err);
    r = r < 0 ? r : lmo_json_str(o, "name", p->groups[n].name, sizeof p->groups[n].name, true, &err);
    r = r < 0 ? r : lmo_json_str(o, "kind", kind, sizeof kind, false, &err);
    r = r < 0 ? r : lmo_json_bool(o, "hard", &hard, false, &err);
    bool together = strcmp(kind, "together") == 0;
    if (r < 0 || !lmo_name_valid(p->groups[n].name) || (!together && strcmp(kind, "apart") != 0)) {
        refuse(req, LMO_E_INVALID, "groups", "groups[%zu]: %s", i,
               r < 0 ? err.text : "needs a name, and apart or together as its kind");
        return false;
    }
    p->groups[n].together = together;
    p->groups[n].hard = hard;
    p->group_count++;
    return true;
}

static bool read_groups(struct lmo_http_request *req, const json_t *groups, struct lmo_vm_policy *p)
{
    if (!groups || json_is_null(groups)) {
        return true;
    }
    if (!json_is_array(groups) || json_array_size(groups) > LMO_GUEST_GROUPS_MAX) {
        refuse(req, LMO_E_INVALID, "groups", "groups: must be a list of at most %d", LMO_GUEST_GROUPS_MAX);
        return false;
    }
    for (size_t i = 0; i < json_array_size(groups); i++) {
        if (!read_group(req, json_array_get(groups, i), i, p)) {
            return false;
        }
    }
    return true;
}

void vm_policy_set(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    LMO_AUTO_JSON json_t *root = NULL;
    LMO_AUTO_JSON json_t *labels = NULL;
    LMO_AUTO_JSON json_t *groups = NULL;
    struct policy_body body = {0};
    struct lmo_vm_policy p = {0};
    struct lmo_err err = {0};
    const char *vm = uuid_of(req, params);
    if (!vm || !read_raw_body(req, &root)) {
        return;
    }
    labels = json_incref(json_object_get(root, "labels"));
    groups = json_incref(json_object_get(root, "groups"));
    (void)json_object_del(root, "labels");
    (void)json_object_del(root, "groups");
    if (!decode_body(req, &policy_table, root, &body) || !read_labels(req, labels, p.labels, sizeof p.labels) ||
        !read_groups(req, groups, &p)) {
        return;
    }
    int unmovable = body.unmovable[0] ? lmo_unmovable_from_text(body.unmovable) : LMO_UNMOVABLE_FAIL;
    if (unmovable < 0) {
        refuse(req, LMO_E_INVALID, "unmovable", "unmovable: must be fail, skip, wait, offline or block");
        return;
    }
    p.unmovable_given = body.unmovable[0] != '\0';
    p.unmovable = (enum lmo_unmovable)unmovable;
    asked_or_refused(req, lmo_engine_vm_policy_set(engine_of(api), vm, &p, reply_to_request, req, &err), &err);
}

void vm_policy_get(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *vm = uuid_of(req, params);
    if (vm) {
        asked(req, lmo_engine_vm_policy_get(engine_of(api), vm, reply_to_request, req));
    }
}

struct lease_body {
    char reason[LMO_TEXT_MAX];
    uint32_t seconds;
};
static const struct lmo_field lease_fields[] = {
    LMO_F_TEXT(lease_body, reason, LMO_FIELD_REQUIRED),
    LMO_F_UINT(lease_body, seconds, 86400),
};
static const struct lmo_table lease_table = LMO_TABLE(lease_fields);

void vm_lease_set(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    char principal[LMO_NAME_MAX + 32];
    struct lease_body body = {0};
    const char *vm = uuid_of(req, params);
    if (!vm || !read_body(req, &lease_table, &body, NULL)) {
        return;
    }
    if (body.seconds == 0) {
        refuse(req, LMO_E_INVALID, "seconds", "seconds: from 1 to 86400; DELETE gives the lease back");
        return;
    }
    principal_of(req, principal, sizeof(principal));
    asked(req,
          lmo_engine_vm_lease_set(engine_of(api), vm, body.reason, body.seconds, principal, reply_to_request, req));
}

void vm_lease_drop(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    char principal[LMO_NAME_MAX + 32];
    const char *vm = uuid_of(req, params);
    if (vm) {
        principal_of(req, principal, sizeof(principal));
        asked(req, lmo_engine_vm_lease_set(engine_of(api), vm, "", 0, principal, reply_to_request, req));
    }
}

void vm_lease_get(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *vm = uuid_of(req, params);
    if (vm) {
        asked(req, lmo_engine_vm_lease_get(engine_of(api), vm, reply_to_request, req));
    }
}
