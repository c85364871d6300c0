/* objects.c - see objects.h. Another kind is another row and, if it ends otherwise than these, a function for its outcome. */
#include "cli/objects.h"
#include "cli/api.h"
#include "cli/render.h"

#include <string.h>

/* ------------------------------------------------------------------ hosts */

/* A host is several things at once: reachable or not, and open to guests or not. */
static bool host_is(const json_t *host, const char *wanted)
{
    bool cordoned = json_is_true(json_object_get(host, "cordoned"));
    const char *drain = lmo_api_text(host, "drain_state");
    if (strcmp(wanted, "cordoned") == 0)
        return cordoned;
    if (strcmp(wanted, "drained") == 0)
        return strcmp(drain, "drained") == 0 || strcmp(lmo_api_text(host, "state"), "drained") == 0;
    return strcmp(lmo_api_text(host, "state"), wanted) == 0;
}

static int host_outcome(const struct lmo_wait *w, const json_t *host)
{
    return host_is(host, w->wanted) ? LMO_EXIT_OK : -1;
}

static void host_state(const struct lmo_wait *w, const json_t *host, char *buf, size_t size)
{
    (void)w;
    snprintf(buf, size, "%s%s", lmo_api_text(host, "state"),
             json_is_true(json_object_get(host, "cordoned")) ? ", cordoned" : "");
}

static const struct lmo_wait_spec host = {.noun = "host",
                                          .goes_on = "",
                                          .collection = "/v1/hosts/",
                                          .member = "state",
                                          .outcome = host_outcome,
                                          .state = host_state};

/* ------------------------------------------------------------------ guests */

static int vm_outcome(const struct lmo_wait *w, const json_t *vm)
{
    bool migrating = lmo_api_has(vm, "migration");
    return migrating == (strcmp(w->wanted, "migrating") == 0) ? LMO_EXIT_OK : -1;
}

static void vm_state(const struct lmo_wait *w, const json_t *vm, char *buf, size_t size)
{
    (void)w;
    if (lmo_api_has(vm, "migration"))
        snprintf(buf, size, "in migration %s", lmo_api_text(vm, "migration"));
    else
        snprintf(buf, size, "not migrating");
}

static const struct lmo_wait_spec vm = {.noun = "guest",
                                        .goes_on = "",
                                        .collection = "/v1/vms/",
                                        .member = "host",
                                        .outcome = vm_outcome,
                                        .state = vm_state};

/* ------------------------------------------------------------------ drains */

/* Ends in another state than the one that is waited for are told apart as those of migrations are: nothing was harmed, or
 * somebody must look. */
static int drain_outcome(const struct lmo_wait *w, const json_t *drain)
{
    const char *state = lmo_api_text(drain, "state");
    if (strcmp(state, w->wanted) == 0)
        return LMO_EXIT_OK;
    if (strcmp(state, "cancelled") == 0)
        return LMO_EXIT_ABORTED;
    if (strcmp(state, "failed") == 0 || strcmp(state, "incomplete") == 0)
        return LMO_EXIT_ATTENTION;
    return strcmp(state, "drained") == 0 ? LMO_EXIT_FAILED : -1;
}

static void drain_show(struct lmo_wait *w, const json_t *drain)
{
    char line[LMO_RENDER_LINE_MAX];
    const char *why = lmo_api_text(drain, "waiting_for");
    if (lmo_api_has(drain, "guests_by_state"))
        lmo_render_drain_progress(drain, line);
    else
        snprintf(line, sizeof line, "%.40s%s%.100s", lmo_api_text(drain, "state"), *why ? ", waiting: " : "", why);
    if (strncmp(line, w->said, sizeof w->said - 1) == 0)
        return;
    snprintf(w->said, sizeof w->said, "%s", line);
    lmo_cli_message(w->cli, "drain %s: %s", w->id, line);
}

static void drain_state(const struct lmo_wait *w, const json_t *drain, char *buf, size_t size)
{
    (void)w;
    snprintf(buf, size, "%s", lmo_api_text(drain, "state"));
}

static const struct lmo_wait_spec drain = {.noun = "drain",
                                           .goes_on = "the drain goes on",
                                           .collection = "/v1/drains/",
                                           .member = "state",
                                           .versioned = true,
                                           .outcome = drain_outcome,
                                           .show = drain_show,
                                           .state = drain_state};

/* ------------------------------------------------------------------ the table */

const struct lmo_object_row lmo_object_rows[] = {
    {"migration", LMO_WORD_MIGRATION,
     "ended queued precheck destination_create volume_attach network_preload dual_ingress precopy cutover finalize "
     "rollback "
     "completed aborted attention abandoned",
     "lmo migration list", &lmo_wait_migration},
    {"host", LMO_WORD_HOST, "up down cordoned drained", "lmo host list", &host},
    {"vm", LMO_WORD_VM, "idle migrating", "lmo vm list", &vm},
    {"drain", LMO_WORD_DRAIN, "drained planning running waiting paused cancelling cancelled incomplete failed",
     "lmo drain list", &drain},
};
const size_t lmo_object_row_count = sizeof lmo_object_rows / sizeof lmo_object_rows[0];

const struct lmo_object_row *lmo_object_find(const char *object, const char **ret_name)
{
    const char *slash = strchr(object, '/');
    for (size_t i = 0; slash && i < lmo_object_row_count; i++) {
        size_t len = strlen(lmo_object_rows[i].kind);
        if ((size_t)(slash - object) == len && strncmp(object, lmo_object_rows[i].kind, len) == 0) {
            *ret_name = slash + 1;
            return &lmo_object_rows[i];
        }
    }
    return NULL;
}
