/* backup.c - a copy of the store, streamed; and what becomes of one that was put back.
 *
 * The copy holds everything: every guest's definition, every name. So it is for operators alone (routes.c), and asked for by POST: who
 * took one stands in the audit trail. It is made by a thread of its own, one at a time, beside the store, and has no name
 * any more by the time it is sent. */
#include "api/internal.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKUP_MAX_MS  600000U
#define RESTORE_MAX_MS 120000U

/* ------------------------------------------------------------------ backup */

struct making {
    struct lmo_api *api;
    struct lmo_http_request *req;
};

static void send_file(struct lmo_http_request *req, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    (void)unlink(path);
    if (fd < 0 || fstat(fd, &st) < 0) {
        refuse(req, LMO_E_IO, "", "the copy cannot be read: %s", strerror(errno));
        if (fd >= 0) {
            (void)close(fd);
        }
        return;
    }
    audit_answered(req, 0, NULL, "");
    lmo_http_reply_file(req, 200, "application/vnd.sqlite3", fd, (uint64_t)st.st_size);
}

static void *make(void *arg)
{
    struct making *m = arg;
    struct lmo_api *api = m->api;
    struct lmo_err err = {0};
    (void)unlink(api->backup_path); /* of a coordinator that ended while it made one */
    int r = api->backup(api->backup_arg, api->backup_path, &api->stopping, &err);
    if (r < 0) {
        refuse(m->req, r == LMO_E_CANCELLED ? LMO_E_UNAVAILABLE : r, "", "%s", err.text);
    } else {
        send_file(m->req, api->backup_path);
    }
    free(m);
    atomic_store(&api->backing_up, false);
    return NULL;
}

void backup(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct lmo_api *api = arg;
    (void)params;
    if (!api->backup) {
        refuse(req, LMO_E_UNSUPPORTED, "", "this coordinator's store makes no copies");
        return;
    }
    const char *dry = lmo_http_query(req, "dry_run"); /* true or false: looked at before */
    if (dry && strcmp(dry, "true") == 0) {
        audit_answered(req, 0, NULL, "dry run");
        lmo_http_reply_json(req, 200,
                            json_pack("{s:b, s:i, s:s, s:n}", "dry_run", 1, "status", 200, "would", "copy the store and send the copy",
                                      "result"));
        return;
    }
    if (atomic_exchange(&api->backing_up, true)) {
        refuse(req, LMO_E_BUSY, "", "another backup is being made");
        return;
    }
    if (api->backup_thread_made) {
        pthread_join(api->backup_thread, NULL); /* it has said that it is through */
    }
    struct making *m = malloc(sizeof *m);
    lmo_http_set_timeout(req, BACKUP_MAX_MS);
    if (m) {
        *m = (struct making){.api = api, .req = req};
        api->backup_thread_made = pthread_create(&api->backup_thread, NULL, make, m) == 0;
    }
    if (!m || !api->backup_thread_made) {
        free(m);
        atomic_store(&api->backing_up, false);
        refuse(req, LMO_E_NO_MEMORY, "", "no memory for a backup");
    }
}

void backup_stop(struct lmo_api *api)
{
    atomic_store(&api->stopping, true);
    if (api->backup_thread_made) {
        pthread_join(api->backup_thread, NULL);
    }
}

/* ------------------------------------------------------------------ restore */

struct restore_body {
    bool activate, force;
};
static const struct lmo_field restore_fields[] = {LMO_F_BOOL(restore_body, activate), LMO_F_BOOL(restore_body, force)};
static const struct lmo_table restore_table = LMO_TABLE(restore_fields);

void restore(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct restore_body body = {0};
    char principal[LMO_NAME_MAX + 32];
    (void)params;
    if (!read_body(req, &restore_table, &body, NULL)) {
        return;
    }
    if (body.force && !body.activate) {
        refuse(req, LMO_E_INVALID, "force", "force: only means something with activate");
        return;
    }
    principal_of(req, principal, sizeof(principal));
    lmo_http_set_timeout(req, RESTORE_MAX_MS);
    asked(req, lmo_engine_restore(((struct lmo_api *)arg)->engine, body.activate, body.force, principal,
                                  reply_to_request, req));
}
