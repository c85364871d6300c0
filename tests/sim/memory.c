/* memory.c - every allocation belongs to a simulated process, or to the simulator; a dead process's is dropped whole.
 *
 * The linker turns every malloc, calloc, realloc, free and strdup of our own code into these (--wrap); SQLite and
 * jansson are given them. With AddressSanitizer each block is a real one with a header in front of it, so that it sees
 * what it always sees; otherwise small blocks come from lists by size, which is a sixth of a run's time less. */
#include "sim_private.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t len);

struct sim_block {
    struct sim_block *prev, *next;
    struct sim_process *owner;
    size_t size;
};
_Static_assert(sizeof(struct sim_block) % 16 == 0, "blocks stay aligned");

#if defined(__SANITIZE_ADDRESS__)
#define CLASSES 0
#else
#define CLASSES 136 /* of 32 bytes each: blocks up to a page and its header */
#endif
#define CLASS_BYTES ((size_t)32)
#define CHUNK_BYTES ((size_t)256 * 1024)

static struct sim_block *free_blocks[CLASSES + 1];
static char *chunk;
static size_t chunk_left;

static struct sim_block *simulators; /* blocks of nobody */
static struct sim_process *owner;

struct sim_process *sim_own(struct sim_process *p)
{
    struct sim_process *before = owner;
    owner = p;
    return before;
}

static struct sim_block **list_of(struct sim_process *p)
{
    return p ? &p->blocks : &simulators;
}

static void link_block(struct sim_block *b, struct sim_process *p)
{
    struct sim_block **list = list_of(p);
    b->owner = p;
    b->prev = NULL;
    b->next = *list;
    if (b->next) {
        b->next->prev = b;
    }
    *list = b;
}

static void unlink_block(struct sim_block *b)
{
    if (b->prev) {
        b->prev->next = b->next;
    } else {
        *list_of(b->owner) = b->next;
    }
    if (b->next) {
        b->next->prev = b->prev;
    }
}

static size_t class_of(size_t size)
{
    return (sizeof(struct sim_block) + size + CLASS_BYTES - 1) / CLASS_BYTES;
}

/* ------------------------------------------------------------------ after a fork
 *
 * A forked run shares its parent's pages until it writes to one, and each first write costs more than what it is for. So
 * nothing of the parent's is given back or taken again: new blocks come from a place of their own, densely; freeing one
 * of the parent's does nothing, and a dead process's are forgotten. The child ends soon. */
#define PLACE_BYTES ((size_t)1 << 32) /* addresses, no memory */
#define HUGE        ((size_t)2 << 20) /* pages: taken with one fault each */
#define LARGE_BITS  40

static char *place, *place_floor, *place_next;
static bool forked;
static struct sim_block *place_free[CLASSES + 1 + LARGE_BITS];

void sim_memory_forked(void)
{
    if (CLASSES == 0) {
        return; /* AddressSanitizer's blocks */
    }
    if (!place) {
        place = mmap(NULL, PLACE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        lmo_assert(place != MAP_FAILED);
        place_next = place;
        (void)madvise(place, PLACE_BYTES, MADV_HUGEPAGE);
    }
    forked = true;
    memset(place_free, 0, sizeof place_free);
    place_next += (HUGE - (uintptr_t)place_next % HUGE) % HUGE;
    place_floor = place_next;
}

bool sim_memory_is_own(const void *block)
{
    return !forked || ((const char *)block >= place_floor && (const char *)block < place_next);
}

static size_t place_class(size_t size)
{
    size_t class = class_of(size), all = sizeof(struct sim_block) + size;
    return class <= CLASSES ? class : CLASSES + (size_t)(64 - __builtin_clzll(all - 1));
}

/* `ret_clean`: it is all zeros. */
static struct sim_block *take_place(size_t size, bool *ret_clean)
{
    size_t class = place_class(size);
    lmo_assert(class < sizeof place_free / sizeof place_free[0]);
    struct sim_block *b = place_free[class];
    *ret_clean = !b;
    if (b) {
        place_free[class] = b->next;
        return b;
    }
    size_t bytes = class <= CLASSES ? class * CLASS_BYTES : (size_t)1 << (class - CLASSES);
    lmo_assert(bytes <= PLACE_BYTES - (size_t)(place_next - place));
    b = (struct sim_block *)(void *)place_next;
    place_next += bytes;
    return b;
}

static void *hand_out_place(size_t size, bool zero)
{
    bool clean;
    struct sim_block *b = take_place(size, &clean);
    if (zero && !clean) {
        memset(b + 1, 0, size);
    }
    b->size = size;
    b->owner = owner;
    return b + 1;
}

static void give_back_place(struct sim_block *b)
{
    if (sim_memory_is_own(b)) {
        size_t class = place_class(b->size);
        b->next = place_free[class];
        place_free[class] = b;
    }
}

/* ------------------------------------------------------------------ blocks */

static struct sim_block *take(size_t size)
{
    size_t class = class_of(size);
    if (class > CLASSES) {
        return __real_malloc(sizeof(struct sim_block) + size);
    }
    struct sim_block *b = free_blocks[class];
    if (b) {
        free_blocks[class] = b->next;
        return b;
    }
    size_t bytes = class * CLASS_BYTES;
    if (chunk_left < bytes) {
        chunk =
            __real_malloc(CHUNK_BYTES); /* what is left of the last one is lost: these live as long as the program */
        chunk_left = chunk ? CHUNK_BYTES : 0;
        if (!chunk) {
            return NULL;
        }
    }
    b = (struct sim_block *)(void *)chunk;
    chunk += bytes;
    chunk_left -= bytes;
    return b;
}

static void give_back(struct sim_block *b)
{
    size_t class = class_of(b->size);
    if (class > CLASSES) {
        __real_free(b);
        return;
    }
    b->next = free_blocks[class];
    free_blocks[class] = b;
}

static void *hand_out(struct sim_block *b, size_t size)
{
    if (!b) {
        return NULL;
    }
    b->size = size;
    link_block(b, owner);
    return b + 1;
}

/* The plan's say; only about what a process asks for itself. */
static bool denied(void)
{
    if (!sim_alloc_points || !owner || sim_current() != owner) {
        return false;
    }
    bool fails = sim_observe(SIM_POINT_ALLOC) == SIM_FATE_FAIL;
    owner->starved |= fails;
    return fails;
}

void *__wrap_malloc(size_t size)
{
    if (denied()) {
        return NULL;
    }
    return forked ? hand_out_place(size, false) : hand_out(take(size), size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    size_t all;
    if (__builtin_mul_overflow(count, size, &all) || all > PTRDIFF_MAX / 2 || denied()) {
        return NULL;
    }
    if (forked) {
        return hand_out_place(all, true);
    }
    if (class_of(all) > CLASSES) {
        return hand_out(__real_calloc(1, sizeof(struct sim_block) + all), all);
    }
    struct sim_block *b = take(all);
    if (b) {
        memset(b, 0, sizeof *b + all);
    }
    return hand_out(b, all);
}

void *__wrap_realloc(void *block, size_t size)
{
    if (!block) {
        return __wrap_malloc(size);
    }
    if (denied()) {
        return NULL;
    }
    struct sim_block *b = (struct sim_block *)block - 1;
    struct sim_process *of = b->owner;
    if (forked) {
        if (sim_memory_is_own(b) && place_class(size) == place_class(b->size)) {
            b->size = size;
            return block;
        }
        struct sim_process *before = sim_own(of);
        void *copy = memcpy(hand_out_place(size, false), block, b->size < size ? b->size : size);
        (void)sim_own(before);
        give_back_place(b);
        return copy;
    }
    if (class_of(size) <= CLASSES || class_of(b->size) <= CLASSES) {
        struct sim_process *before = sim_own(of);
        void *copy = class_of(size) == class_of(b->size) ? block : __wrap_malloc(size);
        (void)sim_own(before);
        if (copy == block) {
            b->size = size;
        } else if (copy) {
            memcpy(copy, block, b->size < size ? b->size : size);
            __wrap_free(block);
        }
        return copy;
    }
    unlink_block(b);
    struct sim_block *moved = __real_realloc(b, sizeof *b + size);
    if (!moved) {
        link_block(b, of);
        return NULL;
    }
    moved->size = size;
    link_block(moved, of);
    return moved + 1;
}

void __wrap_free(void *block)
{
    struct sim_block *b = block ? (struct sim_block *)block - 1 : NULL;
    if (forked && b) {
        give_back_place(b);
    } else if (b) {
        unlink_block(b);
        give_back(b);
    }
}

char *__wrap_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = __wrap_malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

char *__wrap_strndup(const char *text, size_t len)
{
    size_t n = strnlen(text, len);
    char *copy = __wrap_malloc(n + 1);
    if (copy) {
        memcpy(copy, text, n);
        copy[n] = '\0';
    }
    return copy;
}

size_t sim_memory_size(void *block)
{
    return block ? ((struct sim_block *)block - 1)->size : 0;
}

void sim_memory_drop(struct sim_process *p)
{
    if (forked) {
        p->blocks = NULL;
    }
    while (p->blocks) {
        struct sim_block *b = p->blocks;
        p->blocks = b->next;
        give_back(b);
    }
}

uint64_t sim_memory_of(const struct sim_process *p)
{
    uint64_t sum = 0;
    for (const struct sim_block *b = p->blocks; b; b = b->next) {
        sum += b->size;
    }
    return sum;
}
