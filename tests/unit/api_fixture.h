/* api_fixture.h - the REST API on the real server, engine and store; only the workers are made up: hv1 has a running guest g1,
 * operations are never answered. For a test case: unchecked fixture api_pki_*, checked fixture api_set_up / api_tear_down. */
#ifndef LMO_TESTS_API_FIXTURE_H
#define LMO_TESTS_API_FIXTURE_H

#include "api/api.h"
#include "http/identity.h"

#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define API_GUEST_UUID "0f0e0d0c-0b0a-4908-8706-050403020100"

void api_pki_set_up(void);
void api_pki_tear_down(void);
void api_set_up(void);
void api_tear_down(void);
/* Ends the coordinator, and starts it again on the same store. */
void api_restart(void);

/* What api_set_up uses; address, tls and engine are filled in there. */
extern struct lmo_api_config api_options;
extern struct lmo_api *api;
extern struct lmo_engine *engine;

/* The last answer. */
extern struct api_answer {
    unsigned status;
    char content_type[128];
    char *body, *headers;
    size_t body_len;
} answer;
extern json_t *body; /* of it; NULL if it has none, or no JSON */

/* `headers`: lines, NULL at the end; NULL: none. The role NONE shows no certificate. */
unsigned ask_as(enum lmo_role role, const char *method, const char *path, const char *text, const char *const *headers);
/* The same; -1: no answer in time, -2: none at all. */
int ask_within(enum lmo_role role, const char *method, const char *path, const char *text, const char *const *headers,
               long timeout_ms);
/* As the operator. */
unsigned ask(const char *method, const char *path, const char *text);
unsigned ask_with_token(const char *token, const char *method, const char *path, const char *text);
/* Of the last answer; NULL: it has no such header. Good until the next call. */
const char *answer_header(const char *name);
const char *member(const char *name); /* "(none)" */
json_int_t number(const char *name);
void add_hosts(void); /* hv1, hv2 */
/* Holds every answer of this test case against proto/openapi.yaml: 0, or it printed what does not fit. */
int answers_conform(void);

#endif
