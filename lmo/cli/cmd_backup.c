/* cmd_backup.c - `lmo backup`, `lmo restore`. */
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define BACKUP_TIMEOUT_MS  610000 /* a little more than the coordinator's own */
#define RESTORE_TIMEOUT_MS 130000

static bool write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return fsync(fd) == 0;
}

int lmo_cmd_backup(struct lmo_cli *cli)
{
    const char *path = cli->args.positional[0];
    struct lmo_cli_call call = {.method = "POST", .path = "/v1/backup", .timeout_ms = BACKUP_TIMEOUT_MS};
    struct lmo_cli_reply reply = {0};
    struct lmo_err err = {0};
    /* The file first: who cannot write it need not ask. It is nobody else's, and none is overwritten. */
    LMO_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        lmo_cli_message(cli, "%s: %s", path, strerror(errno));
        return LMO_EXIT_FAILED;
    }
    if (lmo_api_request(cli, &call, &reply, &err) < 0) {
        (void)unlink(path);
        return lmo_api_unreached(cli, &err);
    }
    LMO_AUTO_FREE char *body = reply.body;
    if (reply.status != 200) {
        LMO_AUTO_JSON json_t *none = NULL;
        (void)unlink(path);
        int rc = lmo_api_accept(cli, &reply, &none);
        return rc ? rc : LMO_EXIT_PROTOCOL;
    }
    if (!write_all(fd, body, reply.body_len)) {
        lmo_cli_message(cli, "%s: %s", path, strerror(errno));
        (void)unlink(path);
        return LMO_EXIT_FAILED;
    }
    if (LMO_GIVEN(&cli->args, JSON)) {
        LMO_AUTO_JSON json_t *j = json_pack("{s:s, s:I}", "file", path, "bytes", (json_int_t)reply.body_len);
        return j ? lmo_cli_print_json(cli, j) : LMO_EXIT_FAILED;
    }
    lmo_cli_message(cli, "%s: %zu bytes. It holds guests' definitions: keep it as you keep the coordinator's keys.",
                    path, reply.body_len);
    return LMO_EXIT_OK;
}

static void show(const json_t *a, FILE *out)
{
    char safe[512], more[512];
    size_t i = 0;
    const json_t *m;
    json_array_foreach(json_object_get(a, "migrations"), i, m)
    {
        fprintf(out, "%s: %s -> ", lmo_format_safe(lmo_api_text(m, "id"), safe, sizeof safe), lmo_api_text(m, "was"));
        fprintf(out, "%s: %s\n", lmo_format_safe(lmo_api_text(m, "becomes"), safe, sizeof safe),
                lmo_format_safe(lmo_api_text(m, "text"), more, sizeof more));
    }
    json_array_foreach(json_object_get(a, "strangers"), i, m)
    {
        fprintf(out, "%s: not in the backup; workers remember it, for guest %s%s\n",
                lmo_format_safe(lmo_api_text(m, "id"), safe, sizeof safe),
                lmo_format_safe(lmo_api_text(m, "vm"), more, sizeof more),
                json_is_true(json_object_get(m, "under_way")) ? ", and it is still under way" : "");
    }
    if (json_object_get(a, "hosts"))
        fprintf(out, "hosts: %" PRIu64 ", not seen: %" PRIu64 "; highest epoch seen: %" PRIu64 "\n",
                lmo_api_u64(a, "hosts"), lmo_api_u64(a, "hosts_unseen"), lmo_api_u64(a, "epoch_seen"));
    bool observing = strcmp(lmo_api_text(a, "state"), "observing") == 0;
    fprintf(out, "state: %s, term %" PRIu64 "%s\n", lmo_format_safe(lmo_api_text(a, "state"), safe, sizeof safe),
            lmo_api_u64(a, "term"),
            observing ? "; lmo restore --activate does what is shown above, and acts from then on" : "");
}

int lmo_cmd_restore(struct lmo_cli *cli)
{
    bool activate = LMO_GIVEN(&cli->args, ACTIVATE), force = LMO_GIVEN(&cli->args, FORCE);
    struct lmo_cli_call call = {.method = "POST",
                                .path = "/v1/restore",
                                .body = !activate ? "{}"
                                        : force   ? "{\"activate\":true,\"force\":true}"
                                                  : "{\"activate\":true}",
                                .timeout_ms = RESTORE_TIMEOUT_MS};
    struct lmo_cli_reply reply = {0};
    struct lmo_err err = {0};
    LMO_AUTO_JSON json_t *answer = NULL;
    if (force && !activate) {
        lmo_cli_message(cli, "--force: only means something with --activate");
        return LMO_EXIT_USAGE;
    }
    if (lmo_api_request(cli, &call, &reply, &err) < 0)
        return lmo_api_unreached(cli, &err);
    int rc = lmo_api_accept(cli, &reply, &answer);
    free(reply.body);
    if (rc != 0)
        return rc;
    if (LMO_GIVEN(&cli->args, JSON))
        return lmo_cli_print_json(cli, answer);
    show(answer, cli->out);
    return LMO_EXIT_OK;
}
