/* documents.c - what this API says of itself: the OpenAPI document, and a page for each kind of problem. */
#include "api/internal.h"

#include <string.h>

void openapi_document(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    (void)api;
    (void)params;
    lmo_http_reply(req, 200, "application/json", lmo_api_document, lmo_api_document_len);
}

/* Where the `type` of a problem leads. */
void problem_page(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    (void)api;
    for (size_t i = 0; i < lmo_api_problem_count; i++) {
        if (strcmp(lmo_api_problems[i].code, params->value[0]) == 0) {
            lmo_http_reply(req, 200, "text/markdown; charset=utf-8", lmo_api_problems[i].text,
                           strlen(lmo_api_problems[i].text));
            return;
        }
    }
    refuse(req, LMO_E_NOT_FOUND, "code", "no problem has this code");
}
