/*
 * diskwriter DEVICE PERIOD_MS
 *
 * Writes numbered records (record.h) to DEVICE with O_DIRECT and O_DSYNC, one
 * every PERIOD_MS, and publishes the last number that the disk acknowledged.
 *
 * Each slot is read before it is written again and must hold the record that
 * this program remembers having put there. It would not if this memory were
 * older than the volume (a guest resumed from a stale copy), if another copy
 * of the guest wrote too, or if a write was lost: that is a conflict. Each
 * record carries the time, so the same number written by another copy differs.
 *
 * After a boot it continues behind the newest record found on the volume.
 */
#include <sys/ioctl.h>
#include <linux/fs.h>

#include "record.h"
#include "shared.h"

#define SLOTS_MAX 1024u

static uint8_t boot_id[16];
static uint32_t known[SLOTS_MAX]; /* CRC of the record that each slot must hold; 0: never written */

static void read_boot_id(void)
{
    char text[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) < 36) {
        perror("boot_id");
        exit(1);
    }
    close(fd);
    size_t n = 0;
    for (const char *p = text; *p != '\0' && n < sizeof(boot_id);) {
        unsigned byte;
        if (*p == '-') {
            p++;
        } else if (sscanf(p, "%2x", &byte) == 1) {
            boot_id[n++] = (uint8_t)byte;
            p += 2;
        } else {
            break;
        }
    }
}

static int record_valid(const struct record *r)
{
    return r->magic == RECORD_MAGIC && r->crc == record_crc(r, offsetof(struct record, crc));
}

/* The CRC of what was read from a slot; 0 when that is no record. */
static uint32_t held_crc(const struct record *r)
{
    return record_valid(r) ? r->crc : 0;
}

/* Remembers what every slot holds. Returns the highest sequence number on the
 * volume; 0 when it is empty. */
static uint64_t find_newest(int fd, struct record *buf, uint64_t slots)
{
    uint64_t newest = 0;
    for (uint64_t slot = 0; slot < slots; slot++) {
        if (pread(fd, buf, RECORD_SLOT, (off_t)(slot * RECORD_SLOT)) != RECORD_SLOT)
            break;
        known[slot] = held_crc(buf);
        if (record_valid(buf) && buf->seq > newest)
            newest = buf->seq;
        if (newest == 0 && slot >= 1)
            break; /* slot 1 is written first: empty there means an empty volume */
    }
    return newest;
}

int main(int argc, char *argv[])
{
    if (argc != 3) {
        fprintf(stderr, "usage: diskwriter DEVICE PERIOD_MS\n");
        return 2;
    }
    uint64_t period_ns = parse_number(argv[2], "period") * 1000000u;
    struct shared *shared = shared_map();
    read_boot_id();

    int fd = open(argv[1], O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    uint64_t bytes = 0;
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) != 0) {
        perror(argv[1]);
        return 1;
    }
    uint64_t slots = bytes / RECORD_SLOT;
    if (slots > SLOTS_MAX)
        slots = SLOTS_MAX;
    struct record *buf = aligned_alloc(RECORD_SLOT, RECORD_SLOT);
    if (slots < 2 || buf == NULL) {
        fprintf(stderr, "diskwriter: %s is too small\n", argv[1]);
        return 1;
    }

    uint64_t seq = find_newest(fd, buf, slots);
    uint32_t unsure = 0; /* CRC of a write that was not acknowledged: it may have landed or not */
    atomic_store(&shared->disk_seq, seq);
    uint64_t next = now_ns();
    for (;; sleep_period(&next, period_ns)) {
        seq++;
        uint64_t slot = seq % slots;
        off_t where = (off_t)(slot * RECORD_SLOT);

        if (pread(fd, buf, RECORD_SLOT, where) != RECORD_SLOT) {
            atomic_fetch_add(&shared->disk_errors, 1);
        } else {
            uint32_t held = held_crc(buf);
            if (held != known[slot] && (unsure == 0 || held != unsure))
                atomic_fetch_add(&shared->disk_conflicts, 1);
        }

        struct timespec wall;
        clock_gettime(CLOCK_REALTIME, &wall);
        memset(buf, 0, RECORD_SLOT);
        buf->magic = RECORD_MAGIC;
        buf->seq = seq;
        buf->slots = slots;
        buf->wall_ns = (uint64_t)wall.tv_sec * 1000000000u + (uint64_t)wall.tv_nsec;
        memcpy(buf->boot, boot_id, sizeof(boot_id));
        buf->crc = record_crc(buf, offsetof(struct record, crc));

        if (pwrite(fd, buf, RECORD_SLOT, where) == RECORD_SLOT) {
            atomic_store(&shared->disk_seq, seq);
            known[slot] = buf->crc;
            unsure = 0;
        } else {
            atomic_fetch_add(&shared->disk_errors, 1);
            unsure = buf->crc;
            seq--;
        }
    }
}
