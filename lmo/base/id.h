/* id.h - identifiers: ULIDs that we make, UUIDs that we are given, names that people choose. */
#ifndef LMO_BASE_ID_H
#define LMO_BASE_ID_H

#include "base/err.h"
#include "base/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Fills `ret` with random bytes from the kernel. Never fails (it aborts if the kernel has none). */
void lmo_random(void *ret, size_t len);

/* A new ULID: 48 bits of milliseconds since 1970, 80 random bits; sorts by time across processes. */
void lmo_ulid_generate(char ret_id[LMO_ID_MAX]);
/* The pure form: from a given time and 10 given random bytes. */
void lmo_ulid_format(uint64_t realtime_ms, const uint8_t random[10], char ret_id[LMO_ID_MAX]);
/* True for exactly 26 upper-case Crockford characters that do not overflow. */
bool lmo_ulid_valid(const char *id);
/* The time inside a valid ULID, ms since 1970. */
uint64_t lmo_ulid_time_ms(const char *id);

/* A new random (version 4) UUID, lower case. */
void lmo_uuid_generate(char ret_uuid[LMO_UUID_MAX]);
/* True for exactly 8-4-4-4-12 lower-case hexadecimal digits. */
bool lmo_uuid_valid(const char *uuid);
/* Lower-cases a UUID that may be in upper case; LMO_E_INVALID if it is none. */
int lmo_uuid_normalise(const char *text, char ret_uuid[LMO_UUID_MAX]) LMO_MUST_CHECK;

/* Names of hosts, guests, volumes, services, fabrics: 1 to LMO_NAME_MAX-1 of [A-Za-z0-9._-], not starting with
 * '.' or '-'. Safe in paths, URLs, SQL text and log lines. */
bool lmo_name_valid(const char *name);

#endif
