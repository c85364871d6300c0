/* cover.h - part of the verifier that looks for trails: remembers which transitions of the model it has seen.
 *
 * Compiled into pan.c by cutover.pml under -DCOVER. The first time that a transition is taken, lmo_known() says 0; the
 * assertion around it fails, and the verifier, told to go on after errors, writes the way to it down as a trail. It is
 * also printed as a line "KEY machine event argument before after actions": what the replayed trails have to cover. */
#include <stdio.h>
#include <stdlib.h>

#define LMO_COVER_SIZE (1 << 16)

static int lmo_known(int machine, int event, int argument, int before, int after, int actions)
{
    extern int readtrail; /* pan's own: a trail is being replayed, and is to be replayed to its end */
    static struct {
        int used, key[6];
    } table[LMO_COVER_SIZE];
    static unsigned count;
    const int key[6] = {machine, event, argument, before, after, actions};
    unsigned at = 2166136261u;
    if (readtrail) {
        return 1;
    }
    for (int i = 0; i < 6; i++) {
        at = (at ^ (unsigned)key[i]) * 16777619u;
    }
    for (at ^= at >> 15;; at++) {
        int same = 1;
        if (!table[at % LMO_COVER_SIZE].used) {
            break;
        }
        for (int i = 0; i < 6; i++) {
            same &= table[at % LMO_COVER_SIZE].key[i] == key[i];
        }
        if (same) {
            return 1;
        }
    }
    if (++count > LMO_COVER_SIZE / 2) {
        fprintf(stderr, "cover.h: more transitions than there is room for\n");
        exit(1);
    }
    table[at % LMO_COVER_SIZE].used = 1;
    for (int i = 0; i < 6; i++) {
        table[at % LMO_COVER_SIZE].key[i] = key[i];
    }
    fprintf(stderr, "KEY %d %d %d %d %d %d\n", machine, event, argument, before, after, actions);
    return 0;
}
