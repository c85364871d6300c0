/*
 * dirty RATE_MIB_PER_S REGION_MIB
 *
 * Dirties guest memory at a chosen rate: walks over a region and writes one
 * word into each page, so RATE counts whole pages as migration does. Before
 * it writes a page it checks that the page still holds what the last walk
 * left there: memory lost or replayed by a migration is noticed.
 */
#include "shared.h"

#define PAGE    4096u
#define TICK_NS 10000000u

static uint64_t expected(uint64_t page, uint64_t walk)
{
    return walk == 0 ? 0 : page * 0x9e3779b97f4a7c15u + walk;
}

int main(int argc, char *argv[])
{
    if (argc != 3) {
        fprintf(stderr, "usage: dirty RATE_MIB_PER_S REGION_MIB\n");
        return 2;
    }
    uint64_t rate = parse_number(argv[1], "rate");
    uint64_t pages = parse_number(argv[2], "region") * (1048576u / PAGE);
    struct shared *shared = shared_map();

    char *region = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (pages == 0 || region == MAP_FAILED) {
        perror("dirty: region");
        return 1;
    }

    uint64_t page = 0, walk = 1, owed = 0;
    uint64_t next = now_ns();
    for (;;) {
        owed += rate * (1048576u / PAGE) * TICK_NS;
        for (; owed >= 1000000000u; owed -= 1000000000u) {
            uint64_t *word = (uint64_t *)(void *)(region + page * PAGE);
            if (*word != expected(page, walk - 1))
                atomic_fetch_add(&shared->memory_errors, 1);
            *word = expected(page, walk);
            atomic_fetch_add_explicit(&shared->dirty_pages, 1, memory_order_relaxed);
            if (++page == pages) {
                page = 0;
                walk++;
            }
        }
        sleep_period(&next, TICK_NS);
    }
}
