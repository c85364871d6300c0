/* actors.h - who runs in a fleet: coordinators, workers, the client that asks, the auditor that looks at journals. */
#ifndef LMO_TESTS_SIM_ACTORS_H
#define LMO_TESTS_SIM_ACTORS_H

#include "plan.h"
#include "world.h"

/* What became of one request, as the client sees it. */
struct asked {
    const struct plan_request *request;
    char key[32], id[LMO_ID_MAX], outcome[24], phase[32], failed_in[32], reason[256], waiting_for[160];
    char source[LMO_NAME_MAX], destination[LMO_NAME_MAX];
    bool accepted, refused, cancel_sent, cancel_accepted, seen;
    bool attention, resolving; /* it rested there; a decision is under way */
    unsigned tries, decided;
};

struct client {
    const struct plan *plan;
    struct asked asked[PLAN_REQUESTS_MAX];
    unsigned listed;      /* migrations in the last list */
    bool registered;      /* every host */
    bool quiet;           /* no more faults: look how everything ended */
    bool settled;         /* every request has its answer, every migration has ended */
    unsigned resolutions; /* decisions of a person that were taken */
    char problem[256];
};
extern struct client client;

struct auditor {
    unsigned asked, answered, open; /* workers; records that are still there */
    char first[256];
};
extern struct auditor auditor;

void coordinator_main(void *arg); /* arg: its index */
void worker_main(void *arg);      /* arg: struct w_host */
void client_main(void *arg);
void auditor_main(void *arg);

void actors_begin(const struct plan *p);
void actor_url(const struct sim_process *p, const char *path, char ret[LMO_URL_MAX]);

#endif
