/* doctor.c - POST /v1/doctor: look at everything, and mend what is safe if asked to. */
#include "api/internal.h"

#define DOCTOR_MAX_MS 600000U /* every repair is followed by another look at all hosts */

struct doctor_body {
    bool repair;
};
static const struct lmo_field doctor_fields[] = {LMO_F_BOOL(doctor_body, repair)};
static const struct lmo_table doctor_table = LMO_TABLE(doctor_fields);

void doctor(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct doctor_body body = {0};
    char principal[LMO_NAME_MAX + 32];
    (void)params;
    if (!read_body(req, &doctor_table, &body, NULL)) {
        return;
    }
    principal_of(req, principal, sizeof(principal));
    lmo_http_set_timeout(req, body.repair ? DOCTOR_MAX_MS : 2 * REPLY_MAX_MS);
    asked(req, lmo_engine_doctor(((struct lmo_api *)api)->engine, body.repair, principal, reply_to_request, req));
}
