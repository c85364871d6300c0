/* record_codec.h - a migration's record as JSON: whole for the store, and as the REST API shows it.
 *
 * The stored form carries every member, enums as words, so that a record can be read by a person and outlives a change
 * of the numbers. Members that are empty are left out; a record written by an older program decodes with zeros for
 * what it did not know. Unknown members (a newer program's) are an error here, unlike on the wire: a coordinator that
 * cannot read all of a record must not act on it. */
#ifndef LMO_ENGINE_RECORD_CODEC_H
#define LMO_ENGINE_RECORD_CODEC_H

#include "base/buf.h"
#include "base/err.h"
#include "core/migration.h"

#include <jansson.h>

#define LMO_RECORD_TEXT_MAX (512U << 10)

/* Into `buf`, whose maximum is LMO_RECORD_TEXT_MAX and which may be used again and again; what it held is gone. */
int lmo_record_write(const struct lmo_migration *m, struct lmo_buf *buf, struct lmo_err *err) LMO_MUST_CHECK;
/* The same as text of its own; *ret_text: owned by the caller. */
int lmo_record_encode(const struct lmo_migration *m, char **ret_text, struct lmo_err *err) LMO_MUST_CHECK;
/* CORRUPT, naming the place, for anything that lmo_record_encode would not have written. */
int lmo_record_decode(const char *text, size_t len, struct lmo_migration *ret, struct lmo_err *err) LMO_MUST_CHECK;

/* The REST representation; a new reference, NULL only without memory. What is not known is null. */
json_t *lmo_migration_to_rest(const struct lmo_migration *m);
/* The same with the members that lists show. */
json_t *lmo_migration_summary(const struct lmo_migration *m);
/* Until when (ms since 1970) either of them stays as it is if the record does; 0: for as long. */
int64_t lmo_migration_shown_until_ms(const struct lmo_migration *m);

#endif
