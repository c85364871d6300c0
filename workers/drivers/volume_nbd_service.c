/* volume_nbd_service.c - qemu-storage-daemon through QMP: nodes and exports, added, withdrawn, looked at.
 *
 * Every function asks for a state and may be repeated. An answer of the service that says "no" is never interpreted
 * by its words: the service is looked at instead, and what it has decides. A lost reply is handled the same way.
 *
 * Why a withdrawn export means "nothing in flight": in the service an export is in its list for as long as anything
 * refers to it, and each request holds its client, which holds the export. The list entry goes, and
 * BLOCK_EXPORT_DELETED is sent, in the one function that runs when the last reference is gone (docs/nbd.md). */
#include "workers/drivers/volume_nbd.h"

#include "base/json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Somebody waits for this export's deletion. Lives on the waiter's stack while it is in the list. */
struct lmo_nbd_watch {
    struct lmo_nbd_watch *next;
    char id[LMO_NBD_ID_MAX];
    bool gone;
};

uint64_t lmo_nbd_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t lmo_nbd_left_ms(uint64_t deadline_ms)
{
    uint64_t now = lmo_nbd_now_ms();
    return now < deadline_ms ? deadline_ms - now : 0;
}

/* ---------------------------------------------------------------- connection */

static void on_up(void *arg, uint64_t generation)
{
    struct lmo_nbd_service *s = arg;
    pthread_mutex_lock(&s->lock);
    s->generation = generation;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void on_down(void *arg, uint64_t generation)
{
    struct lmo_nbd_service *s = arg;
    (void)generation;
    pthread_mutex_lock(&s->lock);
    s->generation = 0;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void on_event(void *arg, const char *name, const json_t *data)
{
    struct lmo_nbd_service *s = arg;
    const char *id = json_string_value(json_object_get(data, "id"));
    if (strcmp(name, "BLOCK_EXPORT_DELETED") != 0 || !id)
        return;
    pthread_mutex_lock(&s->lock);
    for (struct lmo_nbd_watch *w = s->watches; w; w = w->next)
        if (strcmp(w->id, id) == 0)
            w->gone = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

int lmo_nbd_service_open(struct lmo_nbd_service *s, const char *qmp, struct lmo_err *err)
{
    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
    struct lmo_qmp_config cfg = {.path = qmp, .on_up = on_up, .on_down = on_down, .on_event = on_event, .arg = s};
    int rc = lmo_qmp_open(&cfg, &s->qmp, err);
    if (rc != 0) {
        pthread_cond_destroy(&s->changed);
        pthread_mutex_destroy(&s->lock);
    }
    return rc;
}

void lmo_nbd_service_shutdown(struct lmo_nbd_service *s)
{
    pthread_mutex_lock(&s->lock);
    s->stopped = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    lmo_qmp_shutdown(s->qmp);
}

void lmo_nbd_service_close(struct lmo_nbd_service *s)
{
    lmo_qmp_close(s->qmp);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
}

uint64_t lmo_nbd_service_generation(struct lmo_nbd_service *s)
{
    pthread_mutex_lock(&s->lock);
    uint64_t generation = s->generation;
    pthread_mutex_unlock(&s->lock);
    return generation;
}

static struct timespec timespec_of(uint64_t deadline_ms)
{
    return (struct timespec){.tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
}

int lmo_nbd_service_await(struct lmo_nbd_service *s, uint64_t deadline_ms, uint64_t *ret_generation,
                          struct lmo_err *err)
{
    int rc = lmo_qmp_await(s->qmp, lmo_nbd_left_ms(deadline_ms), err);
    if (rc != 0)
        return rc;
    /* The client is ready a moment before its on_up() has run here. */
    struct timespec until = timespec_of(deadline_ms);
    int wait = 0;
    pthread_mutex_lock(&s->lock);
    while (s->generation == 0 && !s->stopped && wait != ETIMEDOUT)
        wait = pthread_cond_timedwait(&s->changed, &s->lock, &until);
    uint64_t generation = s->stopped ? 0 : s->generation;
    pthread_mutex_unlock(&s->lock);
    if (generation == 0)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "volume service: connection lost");
    if (ret_generation)
        *ret_generation = generation;
    return 0;
}

bool lmo_nbd_try_again(struct lmo_nbd_service *s, int rc, uint64_t deadline_ms)
{
    pthread_mutex_lock(&s->lock);
    bool stopped = s->stopped;
    pthread_mutex_unlock(&s->lock);
    return !stopped && (rc == LMO_E_UNKNOWN || rc == LMO_E_UNAVAILABLE) && lmo_nbd_left_ms(deadline_ms) > 0;
}

/* A call within the deadline. A deadline that has passed before the command was sent is no unknown outcome. */
static int call(struct lmo_nbd_service *s, const char *command, const json_t *arguments, uint64_t deadline_ms,
                json_t **ret, struct lmo_err *err)
{
    uint64_t left = lmo_nbd_left_ms(deadline_ms);
    if (left == 0)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "volume service: no time left to ask for %s", command);
    return lmo_qmp_call(s->qmp, command, arguments, left, ret, err);
}

/* ---------------------------------------------------------------- nodes */

static int find_node(struct lmo_nbd_service *s, const char *volume, uint64_t deadline_ms, json_t **ret_node,
                     struct lmo_err *err)
{
    char name[LMO_NBD_NODE_MAX];
    lmo_nbd_node_name(name, volume);
    LMO_AUTO_JSON json_t *args = json_pack("{s:b}", "flat", 1);
    LMO_AUTO_JSON json_t *nodes = NULL;
    int rc = call(s, "query-named-block-nodes", args, deadline_ms, &nodes, err);
    if (rc != 0)
        return rc;
    size_t i;
    json_t *node;
    json_array_foreach(nodes, i, node)
    {
        const char *found = json_string_value(json_object_get(node, "node-name"));
        if (found && strcmp(found, name) == 0) {
            *ret_node = json_incref(node);
            return 0;
        }
    }
    return lmo_fail(err, LMO_E_NOT_FOUND, "volume %s: the service has no node %s", volume, name);
}

int lmo_nbd_node_add(struct lmo_nbd_service *s, const struct lmo_nbd_volume *v, uint64_t deadline_ms,
                     struct lmo_err *err)
{
    char name[LMO_NBD_NODE_MAX];
    lmo_nbd_node_name(name, v->name);
    LMO_AUTO_JSON json_t *args =
        json_pack("{s:s, s:s, s:s, s:{s:s, s:s, s:s}}", "driver", v->format, "node-name", name, "discard", "unmap",
                  "file", "driver", "file", "filename", v->path, "discard", "unmap");
    if (!args)
        return lmo_fail(err, LMO_E_INVALID, "volume %s: path is not valid UTF-8", v->name);
    int rc = call(s, "blockdev-add", args, deadline_ms, NULL, err);
    if (rc != LMO_E_REFUSED)
        return rc;
    struct lmo_err look = {0};
    LMO_AUTO_JSON json_t *node = NULL;
    int found = find_node(s, v->name, deadline_ms, &node, &look);
    if (found == LMO_E_NOT_FOUND)
        return rc; /* really refused; its text is in err */
    if (found != 0)
        return lmo_fail(err, found, "%s", look.text);
    const char *path = json_string_value(json_object_get(node, "file"));
    const char *format = json_string_value(json_object_get(node, "drv"));
    if (path && format && strcmp(path, v->path) == 0 && strcmp(format, v->format) == 0)
        return 0;
    return lmo_fail(err, LMO_E_CONFLICT, "volume %s: the service's node %s is %s of format %s, not %s of format %s",
                    v->name, name, path ? path : "?", format ? format : "?", v->path, v->format);
}

int lmo_nbd_node_remove(struct lmo_nbd_service *s, const char *volume, uint64_t deadline_ms, struct lmo_err *err)
{
    char name[LMO_NBD_NODE_MAX];
    lmo_nbd_node_name(name, volume);
    LMO_AUTO_JSON json_t *args = json_pack("{s:s}", "node-name", name);
    int rc = call(s, "blockdev-del", args, deadline_ms, NULL, err);
    if (rc != LMO_E_REFUSED)
        return rc;
    LMO_AUTO_JSON json_t *node = NULL;
    struct lmo_err look = {0};
    int found = find_node(s, volume, deadline_ms, &node, &look);
    if (found == LMO_E_NOT_FOUND)
        return 0;
    return found == 0 ? rc : lmo_fail(err, found, "%s", look.text);
}

int lmo_nbd_node_size(struct lmo_nbd_service *s, const char *volume, uint64_t deadline_ms, uint64_t *ret_bytes,
                      struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *node = NULL;
    int rc = find_node(s, volume, deadline_ms, &node, err);
    if (rc != 0)
        return rc;
    json_int_t size = json_integer_value(json_object_get(json_object_get(node, "image"), "virtual-size"));
    *ret_bytes = size > 0 ? (uint64_t)size : 0;
    return 0;
}

/* ---------------------------------------------------------------- exports */

/* All NBD exports, ours or not, as the service's own list. */
static int list_exports(struct lmo_nbd_service *s, uint64_t deadline_ms, json_t **ret, struct lmo_err *err)
{
    int rc = call(s, "query-block-exports", NULL, deadline_ms, ret, err);
    /* A question that was not answered has no effect that could be unknown. */
    return rc == LMO_E_UNKNOWN || rc == LMO_E_TIMEOUT
               ? lmo_fail(err, LMO_E_UNAVAILABLE, "volume service: no answer to what it exports")
               : rc;
}

static enum lmo_nbd_seen seen_of(const json_t *entry)
{
    return json_is_true(json_object_get(entry, "shutting-down")) ? LMO_NBD_DRAINING : LMO_NBD_OFFERED;
}

int lmo_nbd_look(struct lmo_nbd_service *s, const char *volume,
                 void (*cb)(void *arg, const char *export_name, enum lmo_nbd_seen seen), void *arg,
                 uint64_t deadline_ms, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *list = NULL;
    int rc = list_exports(s, deadline_ms, &list, err);
    if (rc != 0 || !cb)
        return rc;
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        const char *id = json_string_value(json_object_get(entry, "id"));
        char of_volume[LMO_NBD_VOLUME_MAX], host[LMO_NAME_MAX];
        uint64_t epoch;
        const char *name = id ? lmo_nbd_export_of_id(id) : "";
        if (lmo_nbd_export_parse(name, of_volume, host, &epoch) && strcmp(of_volume, volume) == 0)
            cb(arg, name, seen_of(entry));
    }
    return 0;
}

int lmo_nbd_look_one(struct lmo_nbd_service *s, const char *export_name, enum lmo_nbd_seen *ret_seen,
                     uint64_t deadline_ms, struct lmo_err *err)
{
    char wanted[LMO_NBD_ID_MAX];
    lmo_nbd_export_id(wanted, export_name);
    LMO_AUTO_JSON json_t *list = NULL;
    int rc = list_exports(s, deadline_ms, &list, err);
    if (rc != 0)
        return rc;
    enum lmo_nbd_seen seen = LMO_NBD_ABSENT;
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        const char *id = json_string_value(json_object_get(entry, "id"));
        if (id && strcmp(id, wanted) == 0)
            seen = seen_of(entry);
    }
    *ret_seen = seen;
    return 0;
}

int lmo_nbd_offer(struct lmo_nbd_service *s, const char *volume, const char *export_name, uint64_t deadline_ms,
                  struct lmo_err *err)
{
    char id[LMO_NBD_ID_MAX], node[LMO_NBD_NODE_MAX];
    lmo_nbd_export_id(id, export_name);
    lmo_nbd_node_name(node, volume);
    LMO_AUTO_JSON json_t *args = json_pack("{s:s, s:s, s:s, s:s, s:b}", "type", "nbd", "id", id, "node-name", node,
                                           "name", export_name, "writable", 1);
    int rc = call(s, "block-export-add", args, deadline_ms, NULL, err);
    if (rc != LMO_E_REFUSED)
        return rc;
    struct lmo_err look = {0};
    enum lmo_nbd_seen seen;
    int looked = lmo_nbd_look_one(s, export_name, &seen, deadline_ms, &look);
    if (looked != 0)
        return lmo_fail(err, looked, "%s", look.text);
    if (seen == LMO_NBD_DRAINING)
        return lmo_fail(err, LMO_E_BUSY, "export %s: its deletion is still draining", export_name);
    return seen == LMO_NBD_OFFERED ? 0 : rc;
}

/* Waits until `watch` is gone or the connection is another one. Returns whether it is gone. */
static bool await_gone(struct lmo_nbd_service *s, const struct lmo_nbd_watch *watch, uint64_t generation,
                       uint64_t deadline_ms)
{
    struct timespec until = timespec_of(deadline_ms);
    int wait = 0;
    pthread_mutex_lock(&s->lock);
    while (!watch->gone && s->generation == generation && !s->stopped && wait != ETIMEDOUT)
        wait = pthread_cond_timedwait(&s->changed, &s->lock, &until);
    bool gone = watch->gone;
    pthread_mutex_unlock(&s->lock);
    return gone;
}

#define NBD_AGAIN 1 /* the connection changed under an attempt: look again on the next one */

/* One attempt on the present connection. 0: gone; NBD_AGAIN; or a final error. */
static int withdraw_once(struct lmo_nbd_service *s, const struct lmo_nbd_watch *watch, const char *export_name,
                         uint64_t deadline_ms, struct lmo_err *err)
{
    uint64_t generation = 0;
    int rc = lmo_nbd_service_await(s, deadline_ms, &generation, err);
    if (rc != 0)
        return rc;
    LMO_AUTO_JSON json_t *args = json_pack("{s:s, s:s}", "id", watch->id, "mode", "hard");
    rc = call(s, "block-export-del", args, deadline_ms, NULL, err);
    if (rc == LMO_E_REFUSED) {
        struct lmo_err refusal = *err;
        enum lmo_nbd_seen seen;
        rc = lmo_nbd_look_one(s, export_name, &seen, deadline_ms, err);
        if (rc == 0 && seen == LMO_NBD_ABSENT)
            return 0;
        if (rc == 0 && seen == LMO_NBD_OFFERED)
            return lmo_fail(err, LMO_E_REFUSED, "%.300s", refusal.text);
    }
    if (lmo_nbd_try_again(s, rc, deadline_ms))
        return NBD_AGAIN;
    if (rc != 0)
        return rc;
    if (await_gone(s, watch, generation, deadline_ms))
        return 0;
    if (lmo_nbd_left_ms(deadline_ms) > 0)
        return NBD_AGAIN;
    return lmo_fail(err, LMO_E_TIMEOUT, "export %s: deletion asked for, requests in flight are still draining",
                    export_name);
}

int lmo_nbd_withdraw(struct lmo_nbd_service *s, const char *export_name, uint64_t deadline_ms, struct lmo_err *err)
{
    struct lmo_nbd_watch watch = {.gone = false};
    struct lmo_err own = {0};
    if (!err)
        err = &own;
    lmo_nbd_export_id(watch.id, export_name);
    /* The watch is set before the command leaves: the event may come before the command's own reply. */
    pthread_mutex_lock(&s->lock);
    watch.next = s->watches;
    s->watches = &watch;
    pthread_mutex_unlock(&s->lock);
    int rc;
    do
        rc = withdraw_once(s, &watch, export_name, deadline_ms, err);
    while (rc == NBD_AGAIN);
    pthread_mutex_lock(&s->lock);
    for (struct lmo_nbd_watch **p = &s->watches; *p; p = &(*p)->next) {
        if (*p == &watch) {
            *p = watch.next;
            break;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}
