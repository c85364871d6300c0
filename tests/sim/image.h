/* image.h - the contents of a file, in pages of their own: what was never written is not there, and reads as zeros. In a
 * forked run (sim_memory_forked) a page of the parent's is replaced, not written to. */
#ifndef LMO_TESTS_SIM_IMAGE_H
#define LMO_TESTS_SIM_IMAGE_H

#include <stddef.h>

struct image {
    unsigned char **pages;
    size_t page_capacity, size;
};

void image_write(struct image *i, const void *data, size_t length, size_t offset);
/* Shorter, or longer with zeros. */
void image_truncate(struct image *i, size_t size);
/* Beyond the end: zeros. */
void image_read(const struct image *i, void *ret, size_t length, size_t offset);
/* The same bytes at the same place. */
void image_copy(struct image *to, const struct image *from, size_t length, size_t offset);

#endif
