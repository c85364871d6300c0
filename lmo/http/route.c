/* route.c - path templates and dispatch; pure but for the 404 and 405 it answers. */
#include "http/server_internal.h"

#include <stdio.h>
#include <string.h>

bool lmo_http_match(const char *pattern, const char *path, struct lmo_http_params *ret_params)
{
    struct lmo_http_params params;
    params.count = 0;
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        size_t len = strcspn(path, "/");
        const char *end = strchr(pattern, '}');
        if (!end || len == 0 || len >= LMO_HTTP_PARAM_MAX || params.count == LMO_HTTP_PARAMS_MAX)
            return false;
        memcpy(params.value[params.count], path, len);
        params.value[params.count++][len] = '\0';
        path += len;
        pattern = end + 1;
    }
    if (*path)
        return false;
    for (unsigned i = params.count; i < LMO_HTTP_PARAMS_MAX; i++)
        params.value[i][0] = '\0';
    *ret_params = params;
    return true;
}

void lmo_http_dispatch(const struct lmo_http_route *routes, size_t count, void *arg, struct lmo_http_request *req)
{
    struct lmo_http_params params;
    const char *method = lmo_http_method(req), *path = lmo_http_path(req);
    char allow[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (!lmo_http_match(routes[i].pattern, path, &params))
            continue;
        if (strcmp(routes[i].method, method) == 0) {
            req->route = (int)i;
            routes[i].fn(arg, req, &params);
            return;
        }
        int n = snprintf(allow + used, sizeof allow - used, "%s%s", used ? ", " : "", routes[i].method);
        used += n > 0 && (size_t)n < sizeof allow - used ? (size_t)n : 0;
    }
    if (used) {
        (void)lmo_http_set_header(req, "Allow", allow);
        lmo_http_reply_fail(req, LMO_E_METHOD, "%s is not possible here; possible: %s", method, allow);
    } else {
        lmo_http_reply_fail(req, LMO_E_NOT_FOUND, "there is nothing at %.200s", path);
    }
}
