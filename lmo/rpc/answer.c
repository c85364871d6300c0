/* answer.c - what an HTTP answer that is not a success means. */
#include "rpc/internal.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

#define PROBLEM_MAX (16U << 10)

static int code_of_status(unsigned status)
{
    switch (status) {
    case 400: return LMO_E_INVALID;
    case 401: return LMO_E_UNAUTHENTICATED;
    case 403: return LMO_E_FORBIDDEN;
    case 404: return LMO_E_NOT_FOUND;
    case 405: return LMO_E_METHOD;
    case 409: return LMO_E_CONFLICT;
    case 410: return LMO_E_GONE;
    case 413: return LMO_E_TOO_LARGE;
    case 422: return LMO_E_REFUSED;
    case 429: return LMO_E_LIMIT;
    case 503: return LMO_E_UNAVAILABLE;
    case 504: return LMO_E_TIMEOUT;
    case 507: return LMO_E_NO_SPACE;
    default: return LMO_E_UNKNOWN;
    }
}

int answer_error(const struct lmo_http_response *r, char text[LMO_TEXT_MAX])
{
    LMO_AUTO_JSON json_t *root = NULL;
    int code = code_of_status(r->status);
    snprintf(text, LMO_TEXT_MAX, "the worker answered %u", r->status);
    if (lmo_json_parse_object(r->body, r->body_len, PROBLEM_MAX, &root, NULL) < 0) {
        return code;
    }
    const char *name = json_string_value(json_object_get(root, "code"));
    const char *detail = json_string_value(json_object_get(root, "detail"));
    /* The word refines the status (409: conflict or stale_epoch); it cannot make something else of it. */
    if (name && (unsigned)lmo_err_http(lmo_err_from_name(name)) == r->status) {
        code = lmo_err_from_name(name);
    }
    if (detail) {
        copy_text(text, LMO_TEXT_MAX, detail);
    }
    return code;
}
