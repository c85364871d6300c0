/* api.h - asking the coordinator: paths, answers, and what is said when the answer is no. */
#ifndef LMO_CLI_API_H
#define LMO_CLI_API_H

#include "cli/cli.h"

#define LMO_API_PATH_MAX   1024
#define LMO_API_TIMEOUT_MS 30000

/* "/v1/vms/" + percent-encoded segment + suffix. False if it does not fit or the segment is empty, "." or "..". */
bool lmo_api_path(char ret_path[LMO_API_PATH_MAX], const char *before, const char *segment, const char *after);
/* Appends "?name=value" or "&name=value", encoded; nothing if value is NULL. False if it does not fit. */
bool lmo_api_query(char path[LMO_API_PATH_MAX], const char *name, const char *value);

/* One request, nothing printed. 0: an HTTP answer is in *ret_reply (body owned by the caller), whatever its status.
 * Else LMO_E_* as in http/client.h, or INVALID when the connection's settings are incomplete. */
int lmo_api_request(struct lmo_cli *cli, const struct lmo_cli_call *call, struct lmo_cli_reply *ret_reply,
                    struct lmo_err *err) LMO_MUST_CHECK;

/* The same for an answer that goes on, as lmo_transport_follow says. UNSUPPORTED where requests are a test's (cli->request). */
int lmo_api_follow(struct lmo_cli *cli, const char *path, const char *last_event_id, uint64_t idle_ms,
                   int (*on_data)(void *arg, const char *data, size_t len), void *arg, struct lmo_cli_reply *ret_reply,
                   struct lmo_err *err) LMO_MUST_CHECK;

/* Is this answer a yes, and JSON? 0 and *ret_json (owned; NULL for an empty body); otherwise it says why on stderr
 * (with --json the problem also goes to stdout) and returns the exit code. */
int lmo_api_accept(struct lmo_cli *cli, const struct lmo_cli_reply *reply, json_t **ret_json) LMO_MUST_CHECK;

/* Says that a request failed on the way and returns the exit code. */
int lmo_api_unreached(struct lmo_cli *cli, const struct lmo_err *err);

/* All of it for the plain case. `body` is borrowed and may be NULL. 0 or an exit code. */
int lmo_api_call(struct lmo_cli *cli, const char *method, const char *path, const json_t *body,
                 json_t **ret_json) LMO_MUST_CHECK;

/* GET of a whole list, page by page: the answer to the first page, with the items of all in its array `list`. 0 or an exit
 * code. */
int lmo_api_list(struct lmo_cli *cli, const char *path, const char *list, json_t **ret_json) LMO_MUST_CHECK;

/* Tolerant readers of the coordinator's objects: absent, null or of another type is "" or 0. */
const char *lmo_api_text(const json_t *obj, const char *field);
double lmo_api_number(const json_t *obj, const char *field);
uint64_t lmo_api_u64(const json_t *obj, const char *field);
bool lmo_api_has(const json_t *obj, const char *field); /* present and not null */

#endif
