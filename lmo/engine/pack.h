/* pack.h - a record while nobody works on it: without its zeros.
 *
 * A record is a large plain struct (limits times sizes) of which a migration uses a small part: unused volumes, ports and
 * tasks, the rest behind short texts. Packed it is what is left when blocks of zeros are taken out; which members
 * there are plays no part, so a new member needs no change here. */
#ifndef LMO_ENGINE_PACK_H
#define LMO_ENGINE_PACK_H

#include "core/migration.h"

struct lmo_packed;

/* Owned by the caller, for free(); NULL without memory. `old`: a packed record that is not needed any more, whose memory may
 * be used again (NULL: none); it is left alone if the call fails. */
struct lmo_packed *lmo_record_pack(const struct lmo_migration *m, struct lmo_packed *old);
/* Members of arrays beyond their count are left as they are in *ret: they mean nothing. */
void lmo_record_unpack(const struct lmo_packed *p, struct lmo_migration *ret);
size_t lmo_packed_size(const struct lmo_packed *p);

#endif
