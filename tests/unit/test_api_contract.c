/* test_api_contract.c - what holds for every request of the REST API: the table of routes and the document are one, problems
 * have pages, repeats have one effect, pages of lists do not shift, preconditions, dry runs, roles, tokens, the audit trail. */
#include "api/routes.h"
#include "api_fixture.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/id.h"

#include <stdlib.h>
#include <stdatomic.h>
#include <unistd.h>

#define SOME_ID   "01JD2Z3W5X6Y7Z8A9B0C1D2E3F"
#define SOME_UUID "6f0d3c1e-0000-4000-8000-0000000000ff"

/* ------------------------------------------------------------------ the document */

static const struct lmo_api_operation *operation_of(const struct lmo_api_route *r)
{
    for (size_t i = 0; i < lmo_api_operation_count; i++) {
        const struct lmo_api_operation *o = &lmo_api_operations[i];
        if (strcmp(o->method, r->method) == 0 && strcmp(o->pattern, r->pattern) == 0) {
            return o;
        }
    }
    return NULL;
}

static bool has_query(const struct lmo_api_operation *o, const char *name)
{
    for (const char *const *q = o->query; *q; q++) {
        if (strcmp(*q, name) == 0) {
            return true;
        }
    }
    return false;
}

START_TEST(every_route__has_an_operation_and_every_operation_a_route)
{
    for (size_t i = 0; i < lmo_api_route_count; i++) {
        const struct lmo_api_route *r = &lmo_api_routes[i];
        ck_assert_msg(operation_of(r) != NULL, "%s %s is not in proto/openapi.yaml", r->method, r->pattern);
        for (size_t k = 0; k < i; k++) {
            ck_assert_msg(strcmp(r->method, lmo_api_routes[k].method) != 0 || strcmp(r->pattern, lmo_api_routes[k].pattern) != 0,
                          "%s %s is there twice", r->method, r->pattern);
        }
    }
    for (size_t i = 0; i < lmo_api_operation_count; i++) {
        const struct lmo_api_operation *o = &lmo_api_operations[i];
        bool found = false;
        for (size_t k = 0; k < lmo_api_route_count; k++) {
            found = found || operation_of(&lmo_api_routes[k]) == o;
        }
        ck_assert_msg(found, "%s: %s %s is no route", o->id, o->method, o->pattern);
    }
}
END_TEST

START_TEST(every_change__can_be_tried_without_being_made)
{
    for (size_t i = 0; i < lmo_api_route_count; i++) {
        const struct lmo_api_route *r = &lmo_api_routes[i];
        const struct lmo_api_operation *o = operation_of(r);
        bool writes = lmo_api_route_writes(r);
        ck_assert_msg(writes == ((r->flags & LMO_API_DRY_RUN) != 0), "%s %s: LMO_API_DRY_RUN", r->method, r->pattern);
        ck_assert_msg(writes == has_query(o, "dry_run"), "%s: dry_run in proto/openapi.yaml", o->id);
    }
}
END_TEST

START_TEST(the_document__is_served_as_it_was_written)
{
    ck_assert_uint_eq(ask("GET", "/openapi.json", NULL), 200);
    ck_assert_uint_eq(answer.body_len, lmo_api_document_len);
    ck_assert_str_eq(answer.body, lmo_api_document);
    ck_assert_str_eq(member("openapi"), "3.1.0");
}
END_TEST

/* ------------------------------------------------------------------ problems */

static const struct {
    const char *name;
    int http;
} codes[] = {
#define X(name, value, text, http, cls) {(text), (http)},
    LMO_ERRORS(X)
#undef X
};

START_TEST(every_code__has_its_page_and_every_page_its_code)
{
    size_t pages = 0;
    for (size_t i = 1; i < sizeof(codes) / sizeof(codes[0]); i++) { /* the first is ok */
        char path[96], title[64], status[32];
        snprintf(path, sizeof(path), "/problems/%s", codes[i].name);
        snprintf(title, sizeof(title), "# %s\n", codes[i].name);
        snprintf(status, sizeof(status), "| status | %d |", codes[i].http);
        ck_assert_msg(ask("GET", path, NULL) == 200, "%s has no page", codes[i].name);
        ck_assert_msg(strncmp(answer.body, title, strlen(title)) == 0, "%s: %.40s", path, answer.body);
        ck_assert_msg(strstr(answer.body, status) != NULL, "%s says another status than %d", path, codes[i].http);
        ck_assert_msg(strstr(answer.body, "What to do: ") != NULL, "%s does not say what to do", path);
        pages++;
    }
    ck_assert_uint_eq(pages, lmo_api_problem_count);
    ck_assert_uint_eq(ask("GET", "/problems/nonesuch", NULL), 404);
    const char *type = member("type"); /* leads to its page as it stands */
    char path[96];
    snprintf(path, sizeof(path), "%s", type);
    ck_assert_uint_eq(ask("GET", path, NULL), 200);
}
END_TEST

/* ------------------------------------------------------------------ requests that change something: one of each */

/* The setting: hosts hv1, hv2, hv3; a migration of g1; a token; a webhook; a hook of g1; a drain of hv1, which waits for that
 * migration. What stands for them in paths and bodies is filled in. */
static char migration[LMO_ID_MAX], token_id[LMO_ID_MAX], drain_id[LMO_ID_MAX], webhook[LMO_ID_MAX];
#define HOOK "/v1/vms/" API_GUEST_UUID "/hook"

static const struct change {
    const char *method, *pattern, *path, *body, *other; /* other: another request for the same */
    unsigned status;                                    /* of the real one */
    unsigned refused; /* the real one is refused so, in this setting; then only its dry run and its audit lines are looked at */
} changes[] = {
    {"POST", "/v1/hosts", "/v1/hosts", "{\"name\":\"hv4\",\"url\":\"https://10.0.0.4:8443\"}",
     "{\"name\":\"hv5\",\"url\":\"https://10.0.0.4:8443\"}", 201, 0},
    {"PATCH", "/v1/hosts/{name}", "/v1/hosts/hv2", "{\"max_incoming\":7}", "{\"max_incoming\":8}", 200, 0},
    {"DELETE", "/v1/hosts/{name}", "/v1/hosts/hv3", NULL, NULL, 204, 0},
    {"POST", "/v1/migrations", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}",
     "{\"vm\":\"g2\",\"destination\":\"hv2\"}", 202, 409},
    {"POST", "/v1/migrations/{id}/cancel", "/v1/migrations/%M/cancel", "{}", NULL, 202, 0},
    {"POST", "/v1/migrations/{id}/resolve", "/v1/migrations/%M/resolve", "{\"decision\":\"retry\",\"reason\":\"x\"}",
     "{\"decision\":\"abandon\",\"reason\":\"x\"}", 202, 409},
    {"POST", "/v1/doctor", "/v1/doctor", "{}", "{\"repair\":true}", 200, 0},
    {"POST", "/v1/backup", "/v1/backup", NULL, NULL, 200, 422}, /* this store makes no copies */
    {"POST", "/v1/restore", "/v1/restore", "{}", "{\"activate\":true}", 200, 0},
    {"POST", "/v1/tokens", "/v1/tokens", "{\"name\":\"new\",\"role\":\"viewer\"}", "{\"name\":\"new\",\"role\":\"operator\"}", 201, 0},
    {"DELETE", "/v1/tokens/{id}", "/v1/tokens/%T", NULL, NULL, 204, 0},
    {"POST", "/v1/hosts/{name}/cordon", "/v1/hosts/hv2/cordon", "{\"reason\":\"x\"}", "{\"reason\":\"y\"}", 200, 0},
    {"POST", "/v1/hosts/{name}/uncordon", "/v1/hosts/hv2/uncordon", "{}", "{\"reason\":\"y\"}", 200, 0},
    {"PUT", "/v1/hosts/{name}/labels", "/v1/hosts/hv2/labels", "{\"labels\":{\"rack\":\"3\"}}", "{\"labels\":{}}", 200, 0},
    {"PUT", "/v1/vms/{id}/policy", "/v1/vms/" SOME_UUID "/policy", "{\"unmovable\":\"wait\"}", "{\"unmovable\":\"skip\"}", 200, 0},
    {"PUT", "/v1/vms/{id}/lease", "/v1/vms/" SOME_UUID "/lease", "{\"reason\":\"x\",\"seconds\":60}",
     "{\"reason\":\"y\",\"seconds\":60}", 200, 0},
    {"DELETE", "/v1/vms/{id}/lease", "/v1/vms/" SOME_UUID "/lease", NULL, NULL, 200, 0},
    {"POST", "/v1/drains", "/v1/drains", "{\"hosts\":[\"hv2\"]}", "{\"hosts\":[\"hv2\"],\"max_hosts\":1}", 202, 0},
    {"POST", "/v1/drains/{id}/pause", "/v1/drains/%D/pause", "{}", NULL, 200, 0},
    {"POST", "/v1/drains/{id}/resume", "/v1/drains/%D/resume", "{}", NULL, 200, 0},
    {"POST", "/v1/drains/{id}/cancel", "/v1/drains/%D/cancel", "{}", NULL, 200, 0},
    {"POST", "/v1/drains/{id}/acknowledge", "/v1/drains/%D/acknowledge", "{\"host\":\"hv1\"}", NULL, 200, 409},
    {"POST", "/v1/rebalance", "/v1/rebalance", "{\"goal\":\"spread\"}", "{\"goal\":\"pack\"}", 202, 0},
    {"POST", "/v1/migrations/{id}/acknowledge", "/v1/migrations/%M/acknowledge", "{}", NULL, 202, 409}, /* nobody is waited for */
    {"PUT", "/v1/vms/{id}/hook", HOOK, "{\"url\":\"https://127.0.0.1:1/a\"}",
     "{\"url\":\"https://127.0.0.1:1/a\",\"on_no_answer\":\"abort\"}", 200, 0},
    {"DELETE", "/v1/vms/{id}/hook", HOOK, NULL, NULL, 204, 0},
    {"POST", "/v1/webhooks", "/v1/webhooks", "{\"url\":\"https://127.0.0.1:1/a\"}", "{\"url\":\"https://127.0.0.1:1/b\"}", 201, 0},
    {"PATCH", "/v1/webhooks/{id}", "/v1/webhooks/%W", "{\"enabled\":false}", "{\"enabled\":true}", 200, 0},
    {"DELETE", "/v1/webhooks/{id}", "/v1/webhooks/%W", NULL, NULL, 204, 0},
    {"POST", "/v1/webhooks/{id}/rotate", "/v1/webhooks/%W/rotate", NULL, NULL, 200, 0},
    {"POST", "/v1/webhooks/{id}/dead-letters/redeliver", "/v1/webhooks/%W/dead-letters/redeliver", "{}", "{\"sequence\":1}", 202, 0},
};
#define CHANGES (sizeof(changes) / sizeof(changes[0]))

static const char *path_of(const struct change *c)
{
    static char path[256];
    const char *at = strchr(c->path, '%');
    if (!at) {
        return c->path;
    }
    const char *id = at[1] == 'M' ? migration : at[1] == 'D' ? drain_id : at[1] == 'W' ? webhook : token_id;
    snprintf(path, sizeof(path), "%.*s%s%s", (int)(at - c->path), c->path, id, at + 2);
    return path;
}

static void make_setting(void)
{
    char path[64];
    add_hosts();
    ck_assert_uint_eq(ask("POST", "/v1/hosts", "{\"name\":\"hv3\",\"url\":\"https://10.0.0.3:8443\"}"), 201);
    ck_assert_uint_eq(ask("POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}"), 202);
    snprintf(migration, sizeof(migration), "%s", member("id"));
    ck_assert_uint_eq(ask("POST", "/v1/tokens", "{\"name\":\"ci\",\"role\":\"viewer\"}"), 201);
    snprintf(token_id, sizeof(token_id), "%s", member("id"));
    ck_assert_uint_eq(ask("POST", "/v1/drains", "{\"hosts\":[\"hv1\"]}"), 202);
    snprintf(drain_id, sizeof(drain_id), "%s", member("id"));
    snprintf(path, sizeof(path), "/v1/drains/%s", drain_id);
    for (int i = 0; i < 10000 && strcmp(member("state"), "waiting") != 0; i++) { /* for the end of the migration */
        ck_assert_uint_eq(ask("GET", path, NULL), 200);
    }
    ck_assert_str_eq(member("state"), "waiting");
    ck_assert_uint_eq(ask("POST", "/v1/webhooks", "{\"url\":\"https://127.0.0.1:1/in\",\"types\":\"webhook.*\"}"), 201);
    snprintf(webhook, sizeof(webhook), "%s", member("id"));
    ck_assert_uint_eq(ask("PUT", HOOK, "{\"url\":\"https://127.0.0.1:1/before\"}"), 201);
}

START_TEST(every_route_that_changes_something__is_among_those_tried_here)
{
    for (size_t i = 0; i < lmo_api_route_count; i++) {
        const struct lmo_api_route *r = &lmo_api_routes[i];
        bool found = !lmo_api_route_writes(r);
        for (size_t k = 0; k < CHANGES; k++) {
            found = found || (strcmp(changes[k].method, r->method) == 0 && strcmp(changes[k].pattern, r->pattern) == 0);
        }
        ck_assert_msg(found, "%s %s: add it to `changes`", r->method, r->pattern);
    }
}
END_TEST

static unsigned with_key(const struct change *c, const char *key, const char *text)
{
    char line[96];
    const char *const headers[] = {line, NULL};
    snprintf(line, sizeof(line), "Idempotency-Key: %s", key);
    return ask_as(LMO_ROLE_OPERATOR, c->method, path_of(c), text, headers);
}

/* The body without the secret that only the first answer shows. */
static char *comparable(void)
{
    if (body && json_object_get(body, "token")) {
        json_object_del(body, "token");
        return json_dumps(body, JSON_COMPACT);
    }
    return strdup(answer.body ? answer.body : "");
}

START_TEST(a_repeat_under_its_key__gets_the_same_answer_also_after_a_restart)
{
    const struct change *c = &changes[_i];
    make_setting();
    if (c->refused) {
        return;
    }
    unsigned first = with_key(c, "k-1", c->body);
    ck_assert_msg(first == c->status, "%s %s: %u %s", c->method, path_of(c), first, answer.body);
    LMO_AUTO_FREE char *text = comparable();
    char etag[128] = "", location[256] = "";
    snprintf(etag, sizeof(etag), "%s", answer_header("ETag") ? answer_header("ETag") : "");
    snprintf(location, sizeof(location), "%s", answer_header("Location") ? answer_header("Location") : "");
    for (int round = 0; round < 2; round++) {
        ck_assert_uint_eq(with_key(c, "k-1", c->body), first);
        ck_assert_str_eq(answer.body ? answer.body : "", text);
        ck_assert_str_eq(answer_header("ETag") ? answer_header("ETag") : "", etag);
        ck_assert_str_eq(answer_header("Location") ? answer_header("Location") : "", location);
        if (c->other) {
            ck_assert_uint_eq(with_key(c, "k-1", c->other), 422);
            ck_assert_str_eq(member("field"), "Idempotency-Key");
        }
        api_restart();
    }
}
END_TEST

START_TEST(a_key__is_used_up_by_success_alone_and_belongs_to_its_principal)
{
    static const char *const key[] = {"Idempotency-Key: mine", NULL};
    const char *host = "{\"name\":\"hv1\",\"url\":\"https://10.0.0.1:8443\"}";
    ck_assert_uint_eq(ask("POST", "/v1/hosts", host), 201);
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/hosts", host, key), 409); /* nothing was changed, nothing is kept */
    ck_assert_uint_eq(ask("DELETE", "/v1/hosts/hv1", NULL), 204);
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/hosts?dry_run=true", host, key), 200);
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/hosts", host, key), 201);
    ck_assert_uint_eq(ask_as(LMO_ROLE_CONTROL_PLANE, "POST", "/v1/hosts", host, key), 409); /* no repeat of its own */
    ck_assert_str_eq(member("field"), "name");
    ck_assert_uint_eq(ask("DELETE", "/v1/hosts/hv1", NULL), 204);
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/hosts", host, key), 201); /* told again, not done again */
    ck_assert_uint_eq(ask("GET", "/v1/hosts/hv1", NULL), 404);
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "DELETE", "/v1/hosts/hv1", NULL, key), 422); /* another method */
}
END_TEST

/* ------------------------------------------------------------------ dry runs */

static char *all_there_is(void)
{
    static const char *const lists[] = {"/v1/hosts", "/v1/migrations", "/v1/tokens", "/v1/webhooks", HOOK, "/v1/drains",
                                         "/v1/vms/" SOME_UUID "/policy", "/v1/vms/" SOME_UUID "/lease"};
    char *text = strdup("");
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        ck_assert_uint_eq(ask("GET", lists[i], NULL), 200);
        size_t n;
        json_t *h;
        json_array_foreach(json_object_get(body, "hosts"), n, h)
        {
            json_object_del(h, "capabilities"); /* what the worker says of itself moves */
        }
        json_array_foreach(json_object_get(body, "drains"), n, h)
        {
            json_object_del(h, "updated_ms"); /* what is waited for is looked at again and again */
            json_object_del(h, "version");
        }
        json_array_foreach(json_object_get(body, "webhooks"), n, h)
        {
            json_object_del(h, "cursor"); /* so does how far it has come */
            json_object_del(h, "behind");
        }
        LMO_AUTO_FREE char *part = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS), *before = text;
        ck_assert_int_ge(asprintf(&text, "%s%s\n", before, part), 0);
    }
    return text;
}

START_TEST(a_dry_run__says_what_would_happen_and_changes_nothing)
{
    const struct change *c = &changes[_i];
    char path[300];
    make_setting();
    LMO_AUTO_FREE char *before = all_there_is();
    snprintf(path, sizeof(path), "%s?dry_run=true", path_of(c));
    unsigned status = ask(c->method, path, c->body);
    if (c->refused) {
        ck_assert_uint_eq(status, c->refused);
    } else {
        ck_assert_msg(status == 200, "%s %s: %u %s", c->method, path, status, answer.body);
        ck_assert(json_is_true(json_object_get(body, "dry_run")));
        ck_assert_int_eq(number("status"), c->status);
        ck_assert_uint_gt(strlen(member("would")), 10);
    }
    LMO_AUTO_FREE char *after = all_there_is();
    ck_assert_str_eq(before, after);
    snprintf(path, sizeof(path), "%s?dry_run=maybe", path_of(c));
    ck_assert_uint_eq(ask(c->method, path, c->body), 400);
    ck_assert_str_eq(member("field"), "dry_run");
    snprintf(path, sizeof(path), "%s?dryrun=true", path_of(c)); /* misspelt: not a deed */
    ck_assert_uint_eq(ask(c->method, path, c->body), 400);
    LMO_AUTO_FREE char *still = all_there_is();
    ck_assert_str_eq(before, still);
}
END_TEST

START_TEST(a_dry_run_of_a_migration__says_whether_it_would_start_or_what_it_would_wait_for)
{
    const char *text = "{\"vm\":\"g1\",\"destination\":\"hv2\"}";
    add_hosts();
    ck_assert_uint_eq(ask("POST", "/v1/migrations?dry_run=true", text), 200);
    ck_assert_msg(strstr(member("would"), "would be moved from hv1 to hv2; it would start at once"), "%s", member("would"));
    ck_assert_uint_eq(ask("PATCH", "/v1/hosts/hv2", "{\"max_incoming\":0}"), 200);
    ck_assert_uint_eq(ask("POST", "/v1/migrations?dry_run=true", text), 200);
    ck_assert_msg(strstr(member("would"), "wait for an incoming slot of host hv2"), "%s", member("would"));
    const json_t *held = json_object_get(json_object_get(body, "result"), "held_by");
    ck_assert_str_eq(json_string_value(json_object_get(held, "limit")), "incoming");
    ck_assert_uint_eq(ask("POST", "/v1/migrations?dry_run=true", "{\"vm\":\"nobody\",\"destination\":\"hv2\"}"), 404);
    ck_assert_uint_eq(ask("POST", "/v1/migrations?dry_run=true", "{\"vm\":\"g1\",\"destination\":\"hv1\"}"), 400);
    ck_assert_uint_eq(ask("GET", "/v1/migrations", NULL), 200);
    ck_assert_uint_eq(json_array_size(json_object_get(body, "migrations")), 0);
}
END_TEST

/* ------------------------------------------------------------------ preconditions */

static unsigned if_match(const char *method, const char *path, const char *text, const char *etag)
{
    char line[400];
    const char *const headers[] = {line, NULL};
    snprintf(line, sizeof(line), "If-Match: %s", etag);
    return ask_as(LMO_ROLE_OPERATOR, method, path, text, headers);
}

START_TEST(of_two_writers_that_looked_at_the_same_state__one_succeeds)
{
    char seen[128], weak[140], list[300];
    add_hosts();
    ck_assert_uint_eq(ask("GET", "/v1/hosts/hv2", NULL), 200);
    snprintf(seen, sizeof(seen), "%s", answer_header("ETag"));
    ck_assert_uint_eq(if_match("PATCH", "/v1/hosts/hv2", "{\"max_incoming\":3}", seen), 200);
    ck_assert_str_ne(answer_header("ETag"), seen);
    ck_assert_uint_eq(if_match("PATCH", "/v1/hosts/hv2", "{\"max_incoming\":4}", seen), 412);
    ck_assert_str_eq(member("code"), "precondition_failed");
    ck_assert_str_eq(member("field"), "If-Match");
    ck_assert_uint_eq(if_match("DELETE", "/v1/hosts/hv2", NULL, seen), 412);
    ck_assert_uint_eq(ask("GET", "/v1/hosts/hv2", NULL), 200);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(body, "limits"), "max_incoming")), 3);
    snprintf(weak, sizeof(weak), "W/%s", answer_header("ETag"));
    snprintf(list, sizeof(list), "%s, %s", seen, answer_header("ETag"));
    ck_assert_uint_eq(if_match("PATCH", "/v1/hosts/hv2", "{\"max_incoming\":5}", weak), 412);
    ck_assert_uint_eq(if_match("PATCH", "/v1/hosts/hv2", "{\"max_incoming\":5}", list), 200);
    ck_assert_uint_eq(if_match("PATCH", "/v1/hosts/hv2", "{\"max_incoming\":6}", "*"), 200);
    ck_assert_uint_eq(if_match("POST", "/v1/doctor", "{}", "*"), 400); /* where it means nothing it is not passed over */
    ck_assert_str_eq(member("field"), "If-Match");
}
END_TEST

START_TEST(a_decision_about_a_migration__holds_for_the_state_that_was_seen)
{
    char path[128], seen[128];
    make_setting();
    snprintf(path, sizeof(path), "/v1/migrations/%s", migration);
    ck_assert_uint_eq(ask("GET", path, NULL), 200);
    snprintf(seen, sizeof(seen), "%s", answer_header("ETag"));
    strcat(path, "/cancel");
    ck_assert_uint_eq(if_match("POST", path, "{}", "\"queued-0\""), 412);
    ck_assert_uint_eq(if_match("POST", path, "{}", seen), 202);
    ck_assert_str_ne(answer_header("ETag"), seen);
    ck_assert_uint_eq(if_match("POST", path, "{}", seen), 412); /* the first wish changed it */
}
END_TEST

START_TEST(webhooks_and_hooks__are_changed_only_in_the_state_that_was_seen)
{
    char path[128], seen[2][128];
    make_setting();
    snprintf(path, sizeof(path), "/v1/webhooks/%s", webhook);
    const char *const paths[] = {path, HOOK};
    for (size_t i = 0; i < 2; i++) {
        ck_assert_uint_eq(ask("GET", paths[i], NULL), 200);
        snprintf(seen[i], sizeof(seen[i]), "%s", answer_header("ETag"));
    }
    ck_assert_uint_eq(if_match("PATCH", path, "{\"description\":\"x\"}", seen[0]), 200);
    ck_assert_str_ne(answer_header("ETag"), seen[0]);
    ck_assert_uint_eq(if_match("PATCH", path, "{\"description\":\"y\"}", seen[0]), 412);
    ck_assert_uint_eq(if_match("DELETE", path, NULL, seen[0]), 412);
    strcat(path, "/rotate");
    ck_assert_uint_eq(if_match("POST", path, NULL, seen[0]), 412);
    ck_assert_uint_eq(if_match("POST", path, NULL, "*"), 200);
    ck_assert_uint_eq(if_match("PUT", HOOK, "{\"url\":\"https://127.0.0.1:1/b\"}", seen[1]), 200);
    ck_assert_uint_eq(if_match("PUT", HOOK, "{\"url\":\"https://127.0.0.1:1/c\"}", seen[1]), 412);
    ck_assert_uint_eq(if_match("DELETE", HOOK, NULL, seen[1]), 412);
    ck_assert_uint_eq(ask("DELETE", HOOK, NULL), 204);
    ck_assert_uint_eq(if_match("PUT", HOOK, "{\"url\":\"https://127.0.0.1:1/c\"}", "*"), 412); /* there is none any more */
    snprintf(path, sizeof(path), "/v1/migrations/%s/acknowledge", migration);
    ck_assert_uint_eq(if_match("POST", path, NULL, "\"queued-0\""), 412);
}
END_TEST

static void match_twice(const char *look, const char *method, const char *path, const char *one, const char *other)
{
    char seen[128];
    ck_assert_uint_eq(ask("GET", look, NULL), 200);
    snprintf(seen, sizeof(seen), "%s", answer_header("ETag"));
    ck_assert_msg(if_match(method, path, one, seen) == 200, "%s %s: %s", method, path, answer.body);
    ck_assert_str_ne(answer_header("ETag"), seen);
    ck_assert_msg(if_match(method, path, other, seen) == 412, "%s %s: %s", method, path, answer.body);
}

START_TEST(what_is_said_of_hosts_guests_and_drains__holds_for_the_state_that_was_seen)
{
    char path[128], pause[160];
    make_setting();
    match_twice("/v1/hosts/hv2", "PUT", "/v1/hosts/hv2/labels", "{\"labels\":{\"a\":\"1\"}}", "{\"labels\":{\"a\":\"2\"}}");
    match_twice("/v1/hosts/hv2", "POST", "/v1/hosts/hv2/cordon", "{\"reason\":\"x\"}", "{\"reason\":\"y\"}");
    match_twice("/v1/vms/" SOME_UUID "/policy", "PUT", "/v1/vms/" SOME_UUID "/policy", "{\"unmovable\":\"wait\"}",
                "{\"unmovable\":\"skip\"}");
    match_twice("/v1/vms/" SOME_UUID "/lease", "PUT", "/v1/vms/" SOME_UUID "/lease", "{\"reason\":\"x\",\"seconds\":60}",
                "{\"reason\":\"y\",\"seconds\":60}");
    snprintf(path, sizeof(path), "/v1/drains/%s", drain_id);
    snprintf(pause, sizeof(pause), "%s/pause", path);
    match_twice(path, "POST", pause, "{}", "{}");
    ck_assert_str_eq(member("field"), "If-Match");
}
END_TEST

/* ------------------------------------------------------------------ drains */

START_TEST(a_drain_that_is_asked_for_twice__is_one_with_and_without_keys_and_shows_its_plan_before)
{
    static const char *const key[] = {"Idempotency-Key: d-1", NULL}, *const another[] = {"Idempotency-Key: d-2", NULL};
    const char *text = "{\"hosts\":[\"hv1\"]}";
    char id[LMO_ID_MAX];
    add_hosts();
    ck_assert_uint_eq(ask("POST", "/v1/drains?dry_run=true", text), 200);
    const json_t *plan = json_object_get(body, "result");
    ck_assert_uint_eq(json_array_size(json_object_get(plan, "moves")) + json_array_size(json_object_get(plan, "blocked")), 1);
    ck_assert_uint_eq(ask("POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}"), 202); /* keeps it open */
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/drains", text, key), 202);
    snprintf(id, sizeof(id), "%s", member("id"));
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/drains", text, another), 202);
    ck_assert_str_eq(member("id"), id);
    ck_assert_uint_eq(ask("POST", "/v1/drains", text), 202);
    ck_assert_str_eq(member("id"), id);
    ck_assert_uint_eq(ask("POST", "/v1/drains?dry_run=true", text), 200);
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(body, "result"), "id")), id);
    ck_assert_uint_eq(ask("POST", "/v1/drains", "{\"hosts\":[\"hv1\",\"hv2\"]}"), 409);
    ck_assert_uint_eq(ask("GET", "/v1/drains", NULL), 200);
    ck_assert_uint_eq(json_array_size(json_object_get(body, "drains")), 1);
}
END_TEST

START_TEST(a_drain__is_told_from_its_acceptance_to_its_end)
{
    static const char *const types[] = {"\"drain.accepted\"", "\"host.cordoned\"", "\"drain.state\"", "\"drain.drained\""};
    char path[160];
    add_hosts();
    ck_assert_uint_eq(ask("PUT", "/v1/hosts/hv2/labels", "{\"labels\":{\"rack\":\"3\"}}"), 200);
    ck_assert_uint_eq(ask("POST", "/v1/drains", "{\"all_matching\":\"rack=3\"}"), 202);
    snprintf(drain_id, sizeof(drain_id), "%s", member("id"));
    snprintf(path, sizeof(path), "/v1/drains/%s", drain_id);
    for (int i = 0; i < 10000 && strcmp(member("state"), "drained") != 0; i++) {
        ck_assert_uint_eq(ask("GET", path, NULL), 200);
    }
    snprintf(path, sizeof(path), "/v1/events?since=0&follow=false&drain=%s", drain_id);
    ck_assert_uint_eq(ask("GET", path, NULL), 200);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        ck_assert_msg(strstr(answer.body, types[i]) != NULL, "%s: %s", types[i], answer.body);
    }
    ck_assert_ptr_null(strstr(answer.body, "host.labels")); /* nobody said that for the drain */
    ck_assert_uint_eq(ask("POST", "/v1/hosts/hv2/uncordon", "{}"), 200);
    ck_assert_uint_eq(ask("GET", "/v1/events?since=0&follow=false&host=hv2&types=host.*", NULL), 200);
    ck_assert_ptr_nonnull(strstr(answer.body, "\"host.labels\""));
    ck_assert_ptr_nonnull(strstr(answer.body, "\"host.uncordoned\""));
}
END_TEST

/* ------------------------------------------------------------------ pages */

/* Reads the list page by page; every item's name, in order. `between`: called after the first page. */
static void read_all(const char *path, const char *list, const char *key, unsigned limit, void (*between)(void), char *ret,
                     size_t size)
{
    char url[1024], cursor[300] = "";
    ret[0] = '\0';
    for (unsigned page = 0; page < 100; page++) {
        snprintf(url, sizeof(url), "%s%climit=%u%s%s", path, strchr(path, '?') ? '&' : '?', limit, cursor[0] ? "&cursor=" : "", cursor);
        ck_assert_msg(ask("GET", url, NULL) == 200, "%s: %s", url, answer.body);
        size_t i;
        const json_t *item;
        ck_assert_uint_le(json_array_size(json_object_get(body, list)), limit);
        json_array_foreach(json_object_get(body, list), i, item)
        {
            size_t used = strlen(ret);
            const json_t *v = json_object_get(item, key);
            snprintf(ret + used, size - used, json_is_string(v) ? "%s " : "%s%lld ", json_is_string(v) ? json_string_value(v) : "",
                     (long long)json_integer_value(v));
        }
        const char *next = json_string_value(json_object_get(body, "next_cursor"));
        if (!next) {
            return;
        }
        snprintf(cursor, sizeof(cursor), "%s", next);
        if (page == 0 && between) {
            between();
        }
    }
    ck_abort_msg("the list has no end");
}

static void more_hosts(void)
{
    ck_assert_uint_eq(ask("POST", "/v1/hosts", "{\"name\":\"a-first\",\"url\":\"https://10.0.0.3:8443\"}"), 201);
    ck_assert_uint_eq(ask("POST", "/v1/hosts", "{\"name\":\"z-last\",\"url\":\"https://10.0.0.3:8443\"}"), 201);
    ck_assert_uint_eq(ask("DELETE", "/v1/hosts/h00", NULL), 204);
}

START_TEST(pages__follow_each_other_whatever_comes_and_goes)
{
    char text[4096], expected[4096] = "", url[256];
    for (unsigned i = 0; i < 12; i++) {
        char line[128];
        snprintf(line, sizeof(line), "{\"name\":\"h%02u\",\"url\":\"https://10.0.0.3:8443\"}", (i * 5) % 12);
        ck_assert_uint_eq(ask("POST", "/v1/hosts", line), 201);
        snprintf(expected + strlen(expected), 16, "h%02u ", i);
    }
    strcat(expected, "z-last ");
    read_all("/v1/hosts", "hosts", "name", 5, more_hosts, text, sizeof(text));
    ck_assert_str_eq(text, expected);
    ck_assert_uint_eq(ask("GET", "/v1/hosts?limit=2", NULL), 200);
    snprintf(url, sizeof(url), "/v1/hosts?limit=2&state=up&cursor=%s", member("next_cursor")); /* other filters */
    ck_assert_uint_eq(ask("GET", url, NULL), 400);
    ck_assert_str_eq(member("field"), "cursor");
    snprintf(url, sizeof(url), "/v1/tokens?cursor=%s", member("next_cursor"));
    ck_assert_uint_eq(ask("GET", url, NULL), 400);
    static const char *const bad[] = {"x", "****", "AAAA", "", "MDAwMDAwMDAwMDAwMDAwMA"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(url, sizeof(url), "/v1/hosts?cursor=%s", bad[i]);
        ck_assert_uint_eq(ask("GET", url, NULL), 400);
        ck_assert_str_eq(member("field"), "cursor");
    }
}
END_TEST

START_TEST(every_list__can_be_read_in_pages_of_one)
{
    char pieces[8192], whole[8192], path[128];
    make_setting();
    ck_assert_uint_eq(ask("POST", "/v1/tokens", "{\"name\":\"second\",\"role\":\"operator\"}"), 201);
    ck_assert_uint_eq(ask("POST", "/v1/webhooks", "{\"url\":\"https://127.0.0.1:1/second\",\"types\":\"webhook.*\"}"), 201);
    const struct {
        const char *path, *list, *key;
    } lists[] = {{"/v1/webhooks", "webhooks", "id"}, {"/v1/hosts", "hosts", "name"}, {"/v1/tokens", "tokens", "id"}, {"/v1/migrations", "migrations", "id"},
                 {"/v1/vms", "vms", "uuid"}, {"/v1/drains", "drains", "id"}, {"/v1/audit?until_ms=99999999999999", "audit", "n"},
                 {path, "journal", "what"}};
    snprintf(path, sizeof(path), "/v1/migrations/%s/journal", migration);
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        read_all(lists[i].path, lists[i].list, lists[i].key, 1000, NULL, whole, sizeof(whole));
        read_all(lists[i].path, lists[i].list, lists[i].key, 1, NULL, pieces, sizeof(pieces));
        ck_assert_msg(strcmp(whole, pieces) == 0, "%s: %s, not %s", lists[i].path, pieces, whole);
        ck_assert_uint_gt(strlen(whole), 0);
    }
}
END_TEST

static size_t count_of(const char *path, const char *list)
{
    ck_assert_msg(ask("GET", path, NULL) == 200, "%s: %s", path, answer.body);
    return json_array_size(json_object_get(body, list));
}

START_TEST(filters__leave_out_what_they_should)
{
    char path[256];
    make_setting();
    ck_assert_uint_eq(count_of("/v1/migrations?host=hv1", "migrations"), 1);
    ck_assert_uint_eq(count_of("/v1/migrations?host=hv2&state=open&vm=g1", "migrations"), 1);
    ck_assert_uint_eq(count_of("/v1/migrations?host=hv3", "migrations"), 0);
    ck_assert_uint_eq(count_of("/v1/migrations?state=ended", "migrations"), 0);
    ck_assert_uint_eq(count_of("/v1/migrations?until_ms=1", "migrations"), 0);
    snprintf(path, sizeof(path), "/v1/migrations?since_ms=%llu&until_ms=%llu", (unsigned long long)lmo_ulid_time_ms(migration),
             (unsigned long long)lmo_ulid_time_ms(migration) + 1);
    ck_assert_uint_eq(count_of(path, "migrations"), 1);
    ck_assert_uint_eq(count_of("/v1/migrations?view=full", "migrations"), 1);
    ck_assert(json_object_get(json_array_get(json_object_get(body, "migrations"), 0), "policy"));
    ck_assert_uint_eq(count_of("/v1/migrations", "migrations"), 1);
    ck_assert(!json_object_get(json_array_get(json_object_get(body, "migrations"), 0), "policy"));
    ck_assert_uint_eq(count_of("/v1/hosts?state=down", "hosts"), 0);
    ck_assert_uint_eq(count_of("/v1/vms?host=hv1&state=running", "vms"), 1);
    ck_assert_uint_eq(count_of("/v1/vms?host=hv2", "vms"), 0);
    ck_assert_uint_eq(count_of("/v1/vms?state=shut_off", "vms"), 0);
    ck_assert_uint_gt(count_of("/v1/audit?principal=operator:tester", "audit"), 0);
    ck_assert_uint_eq(count_of("/v1/audit?principal=operator:other", "audit"), 0);
    ck_assert_uint_eq(count_of("/v1/audit?until_ms=1", "audit"), 0);
    static const char *const bad[] = {"/v1/hosts?state=x",       "/v1/vms?state=x",     "/v1/vms?host=-",   "/v1/migrations?state=x",
                                      "/v1/migrations?view=x",   "/v1/migrations?host=", "/v1/audit?principal=",
                                      "/v1/migrations?since_ms=-1", "/v1/hosts?colour=red", "/v1/migrations?limit=1001"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(ask("GET", bad[i], NULL) == 400, "%s: %s", bad[i], answer.body);
    }
    ck_assert_uint_eq(ask("GET", "/v1/vms?host=hv9", NULL), 404);
}
END_TEST

/* ------------------------------------------------------------------ who did what */

static void find_lines(const char *request, char *ret, size_t size, const json_t **ret_last)
{
    size_t i;
    const json_t *l;
    ret[0] = '\0';
    ck_assert_uint_eq(ask("GET", "/v1/audit?limit=200", NULL), 200);
    json_array_foreach(json_object_get(body, "audit"), i, l)
    {
        if (strcmp(json_string_value(json_object_get(l, "request")), request) == 0) {
            size_t used = strlen(ret);
            snprintf(ret + used, size - used, "%s ", json_string_value(json_object_get(l, "outcome")));
            *ret_last = l;
        }
    }
}

START_TEST(every_change__is_in_the_audit_trail_whatever_came_of_it)
{
    const struct change *c = &changes[_i];
    const char *const headers[] = {"X-Request-Id: the-one", NULL};
    char text[256] = "", action[256];
    const json_t *line = NULL;
    make_setting();
    unsigned status = ask_as(LMO_ROLE_CONTROL_PLANE, c->method, path_of(c), c->body, headers);
    ck_assert_str_eq(answer_header("X-Request-Id"), "the-one");
    for (int i = 0; i < 200 && !strchr(text, ' '); i++) {
        find_lines("the-one", text, sizeof(text), &line);
    }
    for (int i = 0; i < 200 && strcmp(strchr(text, ' '), " asked ") != 0; i++) { /* an outcome follows its answer */
        find_lines("the-one", text, sizeof(text), &line);
    }
    ck_assert_msg(strcmp(strchr(text, ' '), " asked ") == 0, "%s", text);
    ck_assert_msg((status < 300) == (strncmp(text, "ok ", 3) == 0), "%u, and %s", status, text);
    snprintf(action, sizeof(action), "%s %s", c->method, path_of(c));
    ck_assert_str_eq(json_string_value(json_object_get(line, "principal")), "control-plane:tester");
    ck_assert_str_eq(json_string_value(json_object_get(line, "action")), action);
    ck_assert_msg(strncmp(json_string_value(json_object_get(line, "remote")), "127.0.0.1:", 10) == 0, "remote");
    ck_assert_int_gt(json_integer_value(json_object_get(line, "at_ms")), 0);
}
END_TEST

START_TEST(every_answer__has_a_request_id)
{
    static const char *const given[] = {"X-Request-Id: abc.DEF-1_2", NULL}, *const bad[] = {"X-Request-Id: a b\x7f", NULL};
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "GET", "/v1/hosts", NULL, given), 200);
    ck_assert_str_eq(answer_header("X-Request-Id"), "abc.DEF-1_2");
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "GET", "/v1/hosts", NULL, bad), 200);
    ck_assert(lmo_ulid_valid(answer_header("X-Request-Id")));
    ck_assert_uint_eq(ask_as(LMO_ROLE_WORKER, "GET", "/v1/hosts", NULL, given), 403);
    ck_assert_str_eq(answer_header("X-Request-Id"), "abc.DEF-1_2");
    ck_assert_uint_eq(ask_as(LMO_ROLE_NONE, "GET", "/v1/hosts", NULL, given), 401);
    ck_assert_str_eq(answer_header("X-Request-Id"), "abc.DEF-1_2");
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "GET", "/nowhere", NULL, given), 404);
    ck_assert_str_eq(answer_header("X-Request-Id"), "abc.DEF-1_2");
}
END_TEST

/* ------------------------------------------------------------------ roles */

/* Who may: o(perator), c(ontrol-plane), v(iewer), f(ault-injector); capital: with a certificate only. Said here once more,
 * by hand: the table must not be its own proof. */
static const struct {
    const char *method, *path, *who;
} matrix[] = {
    {"POST", "/v1/hosts", "oc"},
    {"GET", "/v1/hosts", "ocv"},
    {"GET", "/v1/hosts/{name}", "ocv"},
    {"PATCH", "/v1/hosts/{name}", "oc"},
    {"DELETE", "/v1/hosts/{name}", "oc"},
    {"GET", "/v1/vms", "ocv"},
    {"GET", "/v1/vms/{id}", "ocv"},
    {"POST", "/v1/migrations", "oc"},
    {"GET", "/v1/migrations", "ocv"},
    {"GET", "/v1/migrations/{id}", "ocv"},
    {"GET", "/v1/migrations/{id}/journal", "ocv"},
    {"POST", "/v1/migrations/{id}/cancel", "oc"},
    {"POST", "/v1/migrations/{id}/resolve", "oc"},
    {"POST", "/v1/doctor", "oc"},
    {"POST", "/v1/backup", "O"},
    {"POST", "/v1/restore", "O"},
    {"POST", "/v1/tokens", "O"},
    {"GET", "/v1/tokens", "ocv"},
    {"GET", "/v1/tokens/{id}", "ocv"},
    {"DELETE", "/v1/tokens/{id}", "O"},
    {"POST", "/v1/hosts/{name}/cordon", "oc"},
    {"POST", "/v1/hosts/{name}/uncordon", "oc"},
    {"PUT", "/v1/hosts/{name}/labels", "oc"},
    {"GET", "/v1/vms/{id}/explain", "ocv"},
    {"GET", "/v1/vms/{id}/policy", "ocv"},
    {"PUT", "/v1/vms/{id}/policy", "oc"},
    {"GET", "/v1/vms/{id}/lease", "ocv"},
    {"PUT", "/v1/vms/{id}/lease", "oc"},
    {"DELETE", "/v1/vms/{id}/lease", "oc"},
    {"POST", "/v1/drains", "oc"},
    {"GET", "/v1/drains", "ocv"},
    {"GET", "/v1/drains/{id}", "ocv"},
    {"POST", "/v1/drains/{id}/pause", "oc"},
    {"POST", "/v1/drains/{id}/resume", "oc"},
    {"POST", "/v1/drains/{id}/cancel", "oc"},
    {"POST", "/v1/drains/{id}/acknowledge", "oc"},
    {"POST", "/v1/rebalance", "oc"},
    {"GET", "/v1/audit", "ocv"},
    {"GET", "/v1/events", "ocv"},
    {"POST", "/v1/migrations/{id}/acknowledge", "oc"},
    {"PUT", "/v1/vms/{id}/hook", "oc"},
    {"GET", "/v1/vms/{id}/hook", "ocv"},
    {"DELETE", "/v1/vms/{id}/hook", "oc"},
    {"POST", "/v1/webhooks", "oc"},
    {"GET", "/v1/webhooks", "ocv"},
    {"GET", "/v1/webhooks/{id}", "ocv"},
    {"PATCH", "/v1/webhooks/{id}", "oc"},
    {"DELETE", "/v1/webhooks/{id}", "oc"},
    {"POST", "/v1/webhooks/{id}/rotate", "oc"},
    {"GET", "/v1/webhooks/{id}/dead-letters", "ocv"},
    {"POST", "/v1/webhooks/{id}/dead-letters/redeliver", "oc"},
    {"GET", "/readyz", "ocvf"},
    {"GET", "/metrics", "ocv"},
    {"GET", "/healthz", "ocvf"},
    {"GET", "/openapi.json", "ocvf"},
    {"GET", "/problems/{code}", "ocvf"},
};
#define ROLE_COUNT 6
static const enum lmo_role roles[ROLE_COUNT] = {LMO_ROLE_OPERATOR, LMO_ROLE_CONTROL_PLANE, LMO_ROLE_VIEWER,
                                                LMO_ROLE_FAULT_INJECTOR, LMO_ROLE_COORDINATOR, LMO_ROLE_WORKER};
static const char letters[ROLE_COUNT] = {'o', 'c', 'v', 'f', '-', '-'};

static void fill_path(const char *pattern, char *ret, size_t size)
{
    const char *open = strchr(pattern, '{'), *close = open ? strchr(open, '}') : NULL;
    snprintf(ret, size, "%.*s%s%s", open ? (int)(open - pattern) : (int)strlen(pattern), pattern,
             !open                              ? ""
             : strncmp(open, "{id}", 4) == 0    ? SOME_ID
             : strncmp(open, "{code}", 6) == 0  ? "conflict"
                                                : "nobody",
             close ? close + 1 : "");
}

static void with_tokens(void)
{
    api_options = (struct lmo_api_config){.tokens = true};
    api_set_up();
}

START_TEST(roles_and_routes__every_pair_by_certificate_and_by_token)
{
    char tokens[4][160], text[128], path[128];
    for (unsigned i = 0; i < 4; i++) {
        snprintf(text, sizeof(text), "{\"name\":\"t%u\",\"role\":\"%s\"}", i, lmo_role_name(roles[i]));
        ck_assert_uint_eq(ask("POST", "/v1/tokens", text), 201);
        snprintf(tokens[i], sizeof(tokens[i]), "%s", member("token"));
    }
    ck_assert_uint_eq(ask("POST", "/v1/tokens", "{\"name\":\"x\",\"role\":\"worker\"}"), 400);
    ck_assert_uint_eq(sizeof(matrix) / sizeof(matrix[0]), lmo_api_route_count);
    for (size_t m = 0; m < sizeof(matrix) / sizeof(matrix[0]); m++) {
        bool known = false;
        for (size_t i = 0; i < lmo_api_route_count; i++) {
            known = known || (strcmp(lmo_api_routes[i].method, matrix[m].method) == 0 && strcmp(lmo_api_routes[i].pattern, matrix[m].path) == 0);
        }
        ck_assert_msg(known, "%s %s is no route", matrix[m].method, matrix[m].path);
        fill_path(matrix[m].path, path, sizeof(path));
        strcat(path, strcmp(path, "/v1/events") == 0 ? "?follow=false" : ""); /* else it has no end */
        const char *none = strcmp(matrix[m].method, "GET") == 0 ? NULL : "{\"colour\":1}"; /* refused, but not for its role */
        for (unsigned r = 0; r < ROLE_COUNT; r++) {
            bool by_token = strchr(matrix[m].who, letters[r]) != NULL;
            bool may = by_token || strchr(matrix[m].who, letters[r] - 'a' + 'A') != NULL;
            unsigned status = ask_as(roles[r], matrix[m].method, path, none, NULL);
            ck_assert_msg(may == (status != 403) && status != 401, "%s %s as %s: %u", matrix[m].method, path, lmo_role_name(roles[r]), status);
            if (r < 4) {
                status = ask_with_token(tokens[r], matrix[m].method, path, none);
                ck_assert_msg(by_token == (status != 403) && status != 401, "%s %s with a token of %s: %u", matrix[m].method, path,
                              lmo_role_name(roles[r]), status);
            }
        }
        ck_assert_uint_eq(ask_as(LMO_ROLE_NONE, matrix[m].method, path, none, NULL), 401);
        ck_assert_str_eq(answer_header("WWW-Authenticate"), "Bearer");
    }
}
END_TEST

/* ------------------------------------------------------------------ tokens */

static bool store_has(const char *text)
{
    char command[512];
    snprintf(command, sizeof(command), "grep -qrF '%s' /tmp/lmo-api-*/", text);
    return system(command) == 0;
}

START_TEST(a_token__is_shown_once_kept_as_its_hash_and_ends_when_it_is_revoked)
{
    char token[160], id[LMO_ID_MAX], path[128];
    ck_assert_uint_eq(ask("POST", "/v1/tokens", "{\"name\":\"ci\",\"role\":\"viewer\"}"), 201);
    snprintf(token, sizeof(token), "%s", member("token"));
    snprintf(id, sizeof(id), "%s", member("id"));
    ck_assert_uint_eq(strlen(token), 4 + 26 + 1 + 64);
    ck_assert_uint_eq(ask_with_token(token, "GET", "/v1/hosts", NULL), 200);
    ck_assert_uint_eq(ask("GET", "/v1/tokens", NULL), 200);
    ck_assert_msg(!strstr(answer.body, token + 31) && strstr(answer.body, "\"ci\""), "%s", answer.body);
    ck_assert(!store_has(token + 31));
    ck_assert(store_has(id));
    ck_assert_uint_eq(ask("POST", "/v1/tokens", "{\"name\":\"ci\",\"role\":\"viewer\"}"), 409);
    api_restart();
    ck_assert_uint_eq(ask_with_token(token, "GET", "/v1/hosts", NULL), 200);
    token[40] = token[40] == '0' ? '1' : '0';
    ck_assert_uint_eq(ask_with_token(token, "GET", "/v1/hosts", NULL), 401);
    token[40] = token[40] == '0' ? '1' : '0';
    static const char *const bad[] = {"", "x", "lmo_", "lmo_" SOME_ID "_0000000000000000000000000000000000000000000000000000000000000000"};
    for (size_t i = 0; i < 4; i++) {
        ck_assert_uint_eq(ask_with_token(bad[i], "GET", "/v1/hosts", NULL), 401);
    }
    snprintf(path, sizeof(path), "/v1/tokens/%s", id);
    ck_assert_uint_eq(ask("DELETE", path, NULL), 204);
    ck_assert_uint_eq(ask_with_token(token, "GET", "/v1/hosts", NULL), 401);
    ck_assert_uint_eq(ask("GET", path, NULL), 404);
    ck_assert_uint_eq(ask("POST", "/v1/tokens", "{\"name\":\"ci\",\"role\":\"viewer\"}"), 201); /* the name is free again */
}
END_TEST

static void ignore_reply(void *arg, const struct lmo_engine_reply *reply)
{
    json_decref(reply->body);
    *(atomic_int *)arg = reply->code < 0 ? reply->code : 1;
}

START_TEST(a_token_that_has_expired__is_none)
{
    struct lmo_token_row row = {.id = SOME_ID, .name = "old", .role = "operator", .expires_ms = 1, .created_by = "test"}, found;
    atomic_int done = 0;
    memset(row.hash, 'a', 64);
    ck_assert_int_eq(lmo_engine_token_add(engine, &row, ignore_reply, &done), 0);
    while (done == 0) {
        usleep(1000);
    }
    ck_assert_int_eq(done, 1);
    while (lmo_engine_token_find(engine, SOME_ID, &found)) { /* for a millisecond it was one */
        usleep(1000);
    }
    ck_assert_uint_eq(ask("GET", "/v1/tokens/" SOME_ID, NULL), 404);
}
END_TEST

START_TEST(where_tokens_are_not_allowed__they_are_not_looked_at)
{
    ck_assert_uint_eq(ask("POST", "/v1/tokens", "{\"name\":\"ci\",\"role\":\"operator\"}"), 201);
    char token[160];
    snprintf(token, sizeof(token), "%s", member("token"));
    ck_assert_uint_eq(ask_with_token(token, "GET", "/v1/hosts", NULL), 401);
    ck_assert_msg(strstr(member("detail"), "certificate is required"), "%s", member("detail"));
}
END_TEST

START_TEST(who_shows_a_certificate__is_who_it_says_whatever_token_comes_with_it)
{
    char line[256];
    const char *const headers[] = {line, NULL};
    ck_assert_uint_eq(ask("POST", "/v1/tokens", "{\"name\":\"boss\",\"role\":\"operator\"}"), 201);
    snprintf(line, sizeof(line), "Authorization: Bearer %s", member("token"));
    ck_assert_uint_eq(ask_as(LMO_ROLE_VIEWER, "POST", "/v1/doctor", "{}", headers), 403);
    ck_assert_uint_eq(ask_as(LMO_ROLE_WORKER, "GET", "/v1/hosts", NULL, headers), 403);
}
END_TEST

/* ------------------------------------------------------------------ rates */

static void with_low_rate(void)
{
    api_options = (struct lmo_api_config){.rate_per_s = 1, .burst = 4};
    api_set_up();
}

START_TEST(who_asks_too_often__waits_and_keeps_nobody_else_from_asking)
{
    unsigned refused = 0;
    for (unsigned i = 0; i < 12; i++) {
        refused += ask_as(LMO_ROLE_CONTROL_PLANE, "GET", "/v1/hosts", NULL, NULL) == 429;
        if (answer.status == 429) {
            ck_assert_str_eq(member("code"), "limit");
            ck_assert_int_ge(atoi(answer_header("Retry-After")), 1);
        }
    }
    ck_assert_uint_gt(refused, 0);
    ck_assert_uint_eq(ask_as(LMO_ROLE_VIEWER, "GET", "/v1/hosts", NULL, NULL), 200);
}
END_TEST

static void as_usual(void)
{
    api_options = (struct lmo_api_config){0};
    api_set_up();
}

START_TEST(every_answer_so_far__is_one_that_openapi_has)
{
    ck_assert_int_eq(answers_conform(), 0);
}
END_TEST

static TCase *case_of(Suite *s, const char *name, SFun set_up)
{
    TCase *t = tcase_create(name);
    tcase_add_unchecked_fixture(t, api_pki_set_up, api_pki_tear_down);
    tcase_add_checked_fixture(t, set_up, api_tear_down);
    tcase_set_timeout(t, 120);
    suite_add_tcase(s, t);
    return t;
}

Suite *api_contract_suite(void);
Suite *api_contract_suite(void)
{
    Suite *s = suite_create("api_contract");
    TCase *t = case_of(s, "contract", as_usual);
    tcase_add_test(t, every_route__has_an_operation_and_every_operation_a_route);
    tcase_add_test(t, every_change__can_be_tried_without_being_made);
    tcase_add_test(t, the_document__is_served_as_it_was_written);
    tcase_add_test(t, every_code__has_its_page_and_every_page_its_code);
    tcase_add_test(t, every_route_that_changes_something__is_among_those_tried_here);
    tcase_add_loop_test(t, a_repeat_under_its_key__gets_the_same_answer_also_after_a_restart, 0, CHANGES);
    tcase_add_test(t, a_key__is_used_up_by_success_alone_and_belongs_to_its_principal);
    tcase_add_loop_test(t, a_dry_run__says_what_would_happen_and_changes_nothing, 0, CHANGES);
    tcase_add_test(t, a_dry_run_of_a_migration__says_whether_it_would_start_or_what_it_would_wait_for);
    tcase_add_test(t, of_two_writers_that_looked_at_the_same_state__one_succeeds);
    tcase_add_test(t, a_decision_about_a_migration__holds_for_the_state_that_was_seen);
    tcase_add_test(t, webhooks_and_hooks__are_changed_only_in_the_state_that_was_seen);
    tcase_add_test(t, what_is_said_of_hosts_guests_and_drains__holds_for_the_state_that_was_seen);
    tcase_add_test(t, a_drain_that_is_asked_for_twice__is_one_with_and_without_keys_and_shows_its_plan_before);
    tcase_add_test(t, a_drain__is_told_from_its_acceptance_to_its_end);
    tcase_add_test(t, pages__follow_each_other_whatever_comes_and_goes);
    tcase_add_test(t, every_list__can_be_read_in_pages_of_one);
    tcase_add_test(t, filters__leave_out_what_they_should);
    tcase_add_loop_test(t, every_change__is_in_the_audit_trail_whatever_came_of_it, 0, CHANGES);
    tcase_add_test(t, every_answer__has_a_request_id);
    tcase_add_test(t, where_tokens_are_not_allowed__they_are_not_looked_at);
    tcase_add_test(t, a_token_that_has_expired__is_none);
    tcase_add_test(t, every_answer_so_far__is_one_that_openapi_has);
    t = case_of(s, "tokens", with_tokens);
    tcase_add_test(t, roles_and_routes__every_pair_by_certificate_and_by_token);
    tcase_add_test(t, a_token__is_shown_once_kept_as_its_hash_and_ends_when_it_is_revoked);
    tcase_add_test(t, who_shows_a_certificate__is_who_it_says_whatever_token_comes_with_it);
    tcase_add_test(t, every_answer_so_far__is_one_that_openapi_has);
    t = case_of(s, "rates", with_low_rate);
    tcase_add_test(t, who_asks_too_often__waits_and_keeps_nobody_else_from_asking);
    return s;
}
