/*
 * What the guest's programs tell each other: one page in a file on the
 * guest's tmpfs, mapped by all of them. Every field has one writer.
 */
#ifndef LAB_GUEST_SHARED_H
#define LAB_GUEST_SHARED_H

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SHARED_PATH "/run/shared"

struct shared {
    _Atomic uint64_t disk_seq;       /* last sequence number the disk acknowledged (diskwriter) */
    _Atomic uint64_t disk_errors;    /* reads or writes that failed (diskwriter) */
    _Atomic uint64_t disk_conflicts; /* slots that did not hold what was last written there (diskwriter) */
    _Atomic uint64_t dirty_pages;    /* pages written so far (dirty) */
    _Atomic uint64_t memory_errors;  /* pages that did not hold what was last written there (dirty) */
};

static inline struct shared *shared_map(void)
{
    int fd = open(SHARED_PATH, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0) {
        perror(SHARED_PATH);
        exit(1);
    }
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    close(fd);
    return page;
}

static inline uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Sleeps until *next_ns and advances it by one period; after a long stall
 * (a pause, a migration) it does not try to catch up. */
static inline void sleep_period(uint64_t *next_ns, uint64_t period_ns)
{
    uint64_t now = now_ns();
    if (now > *next_ns + 20 * period_ns)
        *next_ns = now;
    struct timespec ts = {
        .tv_sec = (time_t)(*next_ns / 1000000000u),
        .tv_nsec = (long)(*next_ns % 1000000000u),
    };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
        ;
    *next_ns += period_ns;
}

static inline unsigned long parse_number(const char *text, const char *what)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || *text == '\0' || *end != '\0') {
        fprintf(stderr, "bad %s: '%s'\n", what, text);
        exit(2);
    }
    return value;
}

#endif
