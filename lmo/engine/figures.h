/* figures.h - what the engine measures; shared by the engine's own files only. Names and meanings: docs/observability.md. */
#ifndef LMO_ENGINE_FIGURES_H
#define LMO_ENGINE_FIGURES_H

#include "base/metrics.h"

struct lmo_engine;
struct figures {
    struct lmo_metrics *registry; /* owned */
    struct lmo_metric *phase_seconds, *blackout_seconds, *convergence_iterations, *migrations, *retries;
    struct lmo_metric *open_migrations, *queue, *hosts, *stalled, *store_commit_seconds, *commit_failures,
        *round_trip_seconds;
    struct lmo_metric *events, *followers, *webhooks, *webhook_attempts, *webhook_behind, *spans, *build, *attention;
};
#endif
