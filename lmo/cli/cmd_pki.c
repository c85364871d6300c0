/* cmd_pki.c - `lmo pki`: the command line of lmo/pki/ca.h. Local; asks nobody. */
#include "base/clock.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/plain.h"
#include "pki/ca.h"
#include "pki/libvirt.h"

#include <inttypes.h>
#include <string.h>

#define WARN_SECONDS (30LL * 86400)

static const char *directory(struct lmo_cli *cli)
{
    const char *dir = cli->args.text[LMO_OPT_DIR] ? cli->args.text[LMO_OPT_DIR] : cli->env("LMO_PKI_DIR");
    if (dir && *dir)
        return dir;
    lmo_cli_message(cli, "%s: missing --dir DIR (or LMO_PKI_DIR). `lmo pki init DIR` makes one.", cli->command->name);
    return NULL;
}

static int64_t now_s(void)
{
    return (int64_t)(lmo_realtime_us() / 1000000);
}

int lmo_cmd_pki_init(struct lmo_cli *cli)
{
    const char *dir = cli->args.positional[0];
    struct lmo_err err = {0};
    if (lmo_pki_init(dir, &err) < 0)
        return lmo_cli_failed(cli, &err);
    if (LMO_GIVEN(&cli->args, JSON)) {
        LMO_AUTO_JSON json_t *j = json_pack("{s:s}", "directory", dir);
        return j ? lmo_cli_print_json(cli, j) : LMO_EXIT_FAILED;
    }
    lmo_cli_message(cli,
                    "made a CA in %s. Hosts get ca.pem, crl.pem, permit.pub and a certificate of their own; the "
                    "coordinator gets permit.key too; ca.key stays.",
                    dir);
    return 0;
}

static json_t *entry_json(const struct lmo_pki_entry *e)
{
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:s}", "serial", e->serial, "role", lmo_role_name(e->role), "name",
                     e->name, "not_before_ms", (json_int_t)(e->not_before_s * 1000), "not_after_ms",
                     (json_int_t)(e->not_after_s * 1000), "status",
                     lmo_pki_status_name(lmo_pki_entry_status(e, now_s())));
}

static int read_request(struct lmo_cli *cli, struct lmo_pki_request *ret)
{
    const struct lmo_cli_args *a = &cli->args;
    const char *name = a->count > 0 ? a->positional[0] : a->text[LMO_OPT_NAME];
    ret->role = a->count > 0 ? LMO_ROLE_WORKER : lmo_role_from_name(a->text[LMO_OPT_ROLE]);
    if (ret->role == LMO_ROLE_NONE) {
        lmo_cli_message(cli, "--role=%.40s: must be %s", a->text[LMO_OPT_ROLE], lmo_option_rows[LMO_OPT_ROLE].help);
        return LMO_EXIT_USAGE;
    }
    if (LMO_GIVEN(a, DAYS) && LMO_GIVEN(a, SECONDS)) {
        lmo_cli_message(cli, "--days and --seconds: give one of them");
        return LMO_EXIT_USAGE;
    }
    if (strlen(name) >= sizeof ret->name) {
        lmo_cli_message(cli, "name: at most %zu characters", sizeof ret->name - 1);
        return LMO_EXIT_USAGE;
    }
    snprintf(ret->name, sizeof ret->name, "%s", name);
    _Static_assert(LMO_CLI_ADDRESSES_MAX <= LMO_PKI_ADDRESSES_MAX, "every address given fits");
    for (unsigned i = 0; i < a->address_count; i++) {
        if (strlen(a->addresses[i]) >= LMO_PKI_DNS_MAX) {
            lmo_cli_message(cli, "--address: at most %d characters", LMO_PKI_DNS_MAX - 1);
            return LMO_EXIT_USAGE;
        }
        snprintf(ret->addresses[i], LMO_PKI_DNS_MAX, "%s", a->addresses[i]);
    }
    ret->address_count = a->address_count;
    ret->lifetime_s = (int64_t)(LMO_GIVEN(a, SECONDS) ? a->number[LMO_OPT_SECONDS] : a->number[LMO_OPT_DAYS] * 86400);
    ret->renew = LMO_GIVEN(a, RENEW);
    return 0;
}

int lmo_cmd_pki_issue(struct lmo_cli *cli)
{
    const char *dir = directory(cli);
    struct lmo_pki_request request = {0};
    struct lmo_pki_issued issued;
    struct lmo_err err = {0};
    int rc = dir ? read_request(cli, &request) : LMO_EXIT_USAGE;
    if (rc != 0)
        return rc;
    if (lmo_pki_issue(dir, &request, &issued, &err) < 0)
        return lmo_cli_failed(cli, &err);
    if (LMO_GIVEN(&cli->args, JSON)) {
        LMO_AUTO_JSON json_t *j = entry_json(&issued.entry);
        int bad = lmo_json_put_str(j, "certificate", issued.certificate) | lmo_json_put_str(j, "key", issued.key);
        return bad == 0 ? lmo_cli_print_json(cli, j) : LMO_EXIT_FAILED;
    }
    char until[LMO_FORMAT_MAX];
    lmo_cli_message(cli, "issued %s/%s, serial %s, good until %s", lmo_role_name(request.role), request.name,
                    issued.entry.serial, lmo_format_time((uint64_t)issued.entry.not_after_s * 1000, until));
    fprintf(cli->out, "%s\n%s\n", issued.certificate, issued.key);
    return 0;
}

int lmo_cmd_pki_libvirt(struct lmo_cli *cli)
{
    const char *dir = directory(cli);
    struct lmo_pki_request request = {0};
    struct lmo_pki_issued issued;
    struct lmo_err err = {0};
    char tree[LMO_PATH_MAX], until[LMO_FORMAT_MAX];
    int rc = dir ? read_request(cli, &request) : LMO_EXIT_USAGE;
    if (rc != 0)
        return rc;
    if (lmo_pki_libvirt(dir, &request, &issued, tree, &err) < 0)
        return lmo_cli_failed(cli, &err);
    if (LMO_GIVEN(&cli->args, JSON)) {
        LMO_AUTO_JSON json_t *j = entry_json(&issued.entry);
        return lmo_json_put_str(j, "directory", tree) == 0 ? lmo_cli_print_json(cli, j) : LMO_EXIT_FAILED;
    }
    lmo_cli_message(cli, "issued for libvirt and QEMU of %s, good until %s. Put what is in the directory below /etc/pki there.",
                    request.name, lmo_format_time((uint64_t)issued.entry.not_after_s * 1000, until));
    fprintf(cli->out, "%s\n", tree);
    return 0;
}

static int list_entry(void *arg, const struct lmo_pki_entry *e)
{
    return lmo_json_add(arg, entry_json(e));
}

static void render_list(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    static const char *const heading[] = {"SERIAL", "ROLE", "NAME", "NOT AFTER", "STATUS"};
    struct lmo_grid t = {.columns = 5};
    char until[LMO_FORMAT_MAX];
    size_t n = 0;
    const json_t *c;
    for (size_t i = 0; i < 5; i++)
        lmo_grid_cell(&t, heading[i]);
    json_array_foreach(json_object_get(answer, "certificates"), n, c)
    {
        lmo_grid_cell(&t, lmo_api_text(c, "serial"));
        lmo_grid_cell(&t, lmo_api_text(c, "role"));
        lmo_grid_cell(&t, lmo_api_text(c, "name"));
        lmo_grid_cell(&t, lmo_format_time(lmo_api_u64(c, "not_after_ms"), until));
        lmo_grid_cell(&t, lmo_api_text(c, "status"));
    }
    lmo_grid_print(&t, style, out);
    lmo_grid_release(&t);
}

int lmo_cmd_pki_list(struct lmo_cli *cli)
{
    const char *dir = directory(cli);
    if (!dir)
        return LMO_EXIT_USAGE;
    struct lmo_err err = {0};
    int64_t crl_s = 0;
    LMO_AUTO_JSON json_t *list = json_array();
    if (lmo_pki_list(dir, list_entry, list, &crl_s, &err) < 0)
        return lmo_cli_failed(cli, &err);
    LMO_AUTO_JSON json_t *answer =
        json_pack("{s:O, s:I}", "certificates", list, "crl_expires_ms", (json_int_t)(crl_s * 1000));
    int rc = answer ? lmo_cli_show(cli, answer, render_list) : LMO_EXIT_FAILED;
    int64_t now = now_s();
    if (rc == 0 && crl_s - now < WARN_SECONDS) {
        lmo_cli_message(cli, "crl.pem %s; `lmo pki crl` writes a new one, which then has to be put on every host",
                        crl_s < now ? "is overdue: it stays in force, but programs warn"
                                    : "is due for renewal within 30 days");
    }
    return rc;
}

int lmo_cmd_pki_revoke(struct lmo_cli *cli)
{
    const char *dir = directory(cli);
    if (!dir)
        return LMO_EXIT_USAGE;
    struct lmo_err err = {0};
    unsigned total = 0;
    for (unsigned i = 0; i < cli->args.count; i++) {
        const char *what = cli->args.positional[i];
        unsigned revoked = 0;
        if (lmo_pki_revoke(dir, what, &revoked, &err) < 0)
            return lmo_cli_failed(cli, &err);
        total += revoked;
        lmo_cli_message(cli, revoked ? "%s: %u revoked" : "%s: nothing that was still valid (%u revoked)", what,
                        revoked);
    }
    lmo_cli_message(cli, "now put %s/crl.pem on every host and the coordinator", dir);
    if (LMO_GIVEN(&cli->args, JSON))
        fprintf(cli->out, "{\"revoked\":%u}\n", total);
    return 0;
}

int lmo_cmd_pki_crl(struct lmo_cli *cli)
{
    const char *dir = directory(cli);
    if (!dir)
        return LMO_EXIT_USAGE;
    struct lmo_err err = {0};
    if (lmo_pki_refresh_crl(dir, &err) < 0)
        return lmo_cli_failed(cli, &err);
    if (LMO_GIVEN(&cli->args, JSON))
        fputs("{\"refreshed\":true}\n", cli->out);
    lmo_cli_message(cli, "wrote %s/crl.pem; now put it on every host and the coordinator", dir);
    return 0;
}
