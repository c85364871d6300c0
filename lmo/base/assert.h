/* assert.h - assertions that stay on in release builds.
 *
 * An assertion states what our own code guarantees. Whatever a peer, a file or a person sends is checked with an
 * error instead. A failed assertion writes one log line and aborts: a program that no longer knows what it did must
 * not go on moving guests; after its restart it observes. Safe to include from lmo/core: no types of ours. */
#ifndef LMO_BASE_ASSERT_H
#define LMO_BASE_ASSERT_H

_Noreturn void lmo_assert_failed(const char *condition, const char *file, int line, const char *function);

#define lmo_assert(cond) ((cond) ? (void)0 : lmo_assert_failed(#cond, __FILE__, __LINE__, __func__))

/* For places that a switch over an enum cannot reach. */
#define lmo_unreachable(what) lmo_assert_failed("unreachable: " what, __FILE__, __LINE__, __func__)

#endif
