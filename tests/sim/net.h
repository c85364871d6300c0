/* net.h - the network between simulated processes: directed links, and what happens to messages on them. */
#ifndef LMO_TESTS_SIM_NET_H
#define LMO_TESTS_SIM_NET_H

#include "sim.h"

/* From now on, for so long: nothing gets through in that direction. What TCP would send again arrives afterwards, unless
 * its connection has been given up by then. */
void sim_net_cut(const struct sim_process *from, const struct sim_process *to, uint64_t ns);
/* Per mille of messages that are lost for a while (sent again by TCP), or whose connection breaks. */
void sim_net_loss(const struct sim_process *from, const struct sim_process *to, unsigned per_mille, uint64_t ns);
void sim_net_delay(const struct sim_process *from, const struct sim_process *to, uint64_t extra_ns, uint64_t ns);
void sim_net_heal(void);
bool sim_net_is_cut(const struct sim_process *from, const struct sim_process *to);

struct sim_net_counts {
    uint64_t requests, delivered, replies, refused, timeouts, broken, repeated;
};
struct sim_net_counts sim_net_counts(void);

#endif
