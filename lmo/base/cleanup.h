/* cleanup.h - scope-bound ownership: a declaration says who frees. Destructors take NULL. */
#ifndef LMO_BASE_CLEANUP_H
#define LMO_BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LMO_CLEANUP(fn) __attribute__((cleanup(fn)))

static inline void lmo_cleanup_free(void *p) { free(*(void **)p); }
static inline void lmo_cleanup_close(const int *fd) { if (*fd >= 0) close(*fd); }
static inline void lmo_cleanup_fclose(FILE **f) { if (*f) fclose(*f); }

#define LMO_AUTO_FREE LMO_CLEANUP(lmo_cleanup_free)
#define LMO_AUTO_CLOSE LMO_CLEANUP(lmo_cleanup_close)
#define LMO_AUTO_FCLOSE LMO_CLEANUP(lmo_cleanup_fclose)

/* Hands ownership out of a cleanup variable: `return LMO_TAKE(p);` */
#define LMO_TAKE(p) __extension__({ __typeof__(p) take_ = (p); (p) = NULL; take_; })

#endif
