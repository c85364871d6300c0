/* image.c - see image.h. Pages belong to the simulator. */
#include "image.h"
#include "sim_private.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

#define PAGE ((size_t)4096)

static void reserve(struct image *i, size_t pages)
{
    if (pages <= i->page_capacity) {
        return;
    }
    size_t capacity = i->page_capacity ? i->page_capacity : 16;
    while (capacity < pages) {
        capacity *= 2;
    }
    struct sim_process *before = sim_own(NULL);
    i->pages = realloc(i->pages, capacity * sizeof *i->pages);
    (void)sim_own(before);
    lmo_assert(i->pages);
    memset(i->pages + i->page_capacity, 0, (capacity - i->page_capacity) * sizeof *i->pages);
    i->page_capacity = capacity;
}

/* A page that may be written to; `whole`: all of it will be. */
static unsigned char *page_of(struct image *i, size_t n, bool whole)
{
    unsigned char *old = i->pages[n];
    if (old && sim_memory_is_own(old)) {
        return old;
    }
    struct sim_process *before = sim_own(NULL);
    unsigned char *page = old || whole ? malloc(PAGE) : calloc(1, PAGE);
    (void)sim_own(before);
    lmo_assert(page);
    if (old && !whole) {
        memcpy(page, old, PAGE);
    }
    i->pages[n] = page;
    return page;
}

void image_write(struct image *i, const void *data, size_t length, size_t offset)
{
    const unsigned char *from = data;
    size_t end = offset + length;
    reserve(i, (end + PAGE - 1) / PAGE);
    while (offset < end) {
        size_t in = offset % PAGE, part = PAGE - in < end - offset ? PAGE - in : end - offset;
        memcpy(page_of(i, offset / PAGE, part == PAGE) + in, from, part);
        from += part;
        offset += part;
    }
    i->size = i->size > end ? i->size : end;
}

void image_truncate(struct image *i, size_t size)
{
    for (size_t n = size / PAGE; n < (i->size + PAGE - 1) / PAGE; n++) {
        if (n == size / PAGE && size % PAGE != 0) {
            if (i->pages[n]) {
                memset(page_of(i, n, false) + size % PAGE, 0, PAGE - size % PAGE);
            }
            continue;
        }
        free(i->pages[n]);
        i->pages[n] = NULL;
    }
    reserve(i, (size + PAGE - 1) / PAGE);
    i->size = size;
}

void image_read(const struct image *i, void *ret, size_t length, size_t offset)
{
    unsigned char *to = ret;
    for (size_t end = offset + length; offset < end;) {
        size_t n = offset / PAGE, in = offset % PAGE, part = PAGE - in < end - offset ? PAGE - in : end - offset;
        if (n < i->page_capacity && i->pages[n]) {
            memcpy(to, i->pages[n] + in, part);
        } else {
            memset(to, 0, part);
        }
        to += part;
        offset += part;
    }
}

void image_copy(struct image *to, const struct image *from, size_t length, size_t offset)
{
    unsigned char page[PAGE];
    for (size_t end = offset + length; offset < end;) {
        size_t in = offset % PAGE, part = PAGE - in < end - offset ? PAGE - in : end - offset;
        image_read(from, page, part, offset);
        image_write(to, page, part, offset);
        offset += part;
    }
}
