/* netctl.c - developer's tool: calls the OVN drivers' functions one at a time from the command line.
 *
 * For experiments in the lab and for looking at a deployment by hand; nothing of the product uses it. Every command
 * prints one line: "ok <milliseconds>" with what was found, or "<error name>: <text>", and exits with 0 or 1. */
#include "base/clock.h"
#include "base/log.h"
#include "workers/drivers/driver.h"

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
    const char *northbound, *southbound, *ovsdb, *openflow, *bridge, *mac;
    uint64_t timeout_ms;
    bool accept, verbose;
    const char *words[5];
    unsigned count;
};

static const struct argp_option options[] = {
    {"northbound", 'n', "REMOTE", 0, "default tcp:127.0.0.1:6641", 0},
    {"southbound", 's', "REMOTE", 0, "default tcp:127.0.0.1:6642", 0},
    {"ovsdb", 'd', "REMOTE", 0, "default unix:/run/openvswitch/db.sock", 0},
    {"openflow", 'o', "REMOTE", 0, "default unix:/run/openvswitch/br-int.mgmt", 0},
    {"bridge", 'b', "NAME", 0, "default br-int", 0},
    {"mac", 'm', "MAC", 0, "the guest's, for await and open", 0},
    {"timeout", 't', "MS", 0, "default 5000", 0},
    {"accept-stateful-loss", 'a', NULL, 0, "for check", 0},
    {"verbose", 'v', NULL, 0, "log everything", 0},
    {0},
};

static const char commands[] =
    "check PORT SOURCE DESTINATION\npreload DESTINATION\ndual PORT SOURCE DESTINATION\nbound PORT DESTINATION\n"
    "single PORT HOST\nobserve PORT\nawait PORT\nactivated PORT\nopen PORT";

static const char description[] =
    "\nCalls LMO's OVN drivers. The first six commands are the fabric's, the others those of this host.\v"
    "open waits until the port is installed and held, prints \"ready\", waits for a line on standard input, opens the "
    "port and "
    "prints how long the call took and when (CLOCK_BOOTTIME); then it ends at the end of its input.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'n': a->northbound = arg; return 0;
    case 's': a->southbound = arg; return 0;
    case 'd': a->ovsdb = arg; return 0;
    case 'o': a->openflow = arg; return 0;
    case 'b': a->bridge = arg; return 0;
    case 'm': a->mac = arg; return 0;
    case 't': a->timeout_ms = strtoull(arg, NULL, 10); return 0;
    case 'a': a->accept = true; return 0;
    case 'v': a->verbose = true; return 0;
    case ARGP_KEY_ARG:
        if (a->count == sizeof a->words / sizeof a->words[0])
            argp_usage(state);
        a->words[a->count++] = arg;
        return 0;
    case ARGP_KEY_NO_ARGS: argp_usage(state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* -1: no such command. */
static int run_fabric(const struct arguments *a, const struct lmo_port *port, char *text, size_t size,
                      struct lmo_err *err)
{
    const char *const *w = a->words;
    struct lmo_fabric *f = NULL;
    int r = lmo_fabric_ovn_open(a->northbound, a->southbound, &f, err);
    if (r < 0)
        return r;
    if (strcmp(w[0], "check") == 0 && a->count == 4)
        r = f->ops->check(f, port, w[2], w[3], a->accept, a->timeout_ms, err);
    else if (strcmp(w[0], "preload") == 0 && a->count == 2)
        r = f->ops->preload(f, w[1], a->timeout_ms, err);
    else if (strcmp(w[0], "dual") == 0 && a->count == 4)
        r = f->ops->dual(f, port, w[2], w[3], a->timeout_ms, err);
    else if (strcmp(w[0], "bound") == 0 && a->count == 3)
        r = f->ops->await_bound(f, port, w[2], a->timeout_ms, err);
    else if (strcmp(w[0], "single") == 0 && a->count == 3)
        r = f->ops->single(f, port, w[2], a->timeout_ms, err);
    else if (strcmp(w[0], "observe") == 0 && a->count == 2)
        r = f->ops->observe(f, port, text, size, a->timeout_ms, err);
    else
        r = lmo_fail(err, LMO_E_METHOD, "no such command, or not so many words; see --help");
    f->ops->close(f);
    return r;
}

static int open_on_demand(struct lmo_network *n, const struct lmo_port *port, uint64_t timeout_ms, struct lmo_err *err)
{
    char line[16];
    int r = n->ops->await_installed(n, port, timeout_ms, err);
    if (r < 0)
        return r;
    (void)puts("ready");
    (void)fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return lmo_fail(err, LMO_E_CANCELLED, "no line came");
    uint64_t before = lmo_now_ns();
    r = n->ops->activate(n, port, err);
    uint64_t after = lmo_now_ns();
    if (r < 0)
        return r;
    (void)printf("opened call_us=%" PRIu64 " at_ns=%" PRIu64 "\n", (after - before) / 1000, after);
    (void)fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        continue;
    bool open = false;
    r = n->ops->activated(n, port, &open, timeout_ms, err);
    if (r == 0)
        (void)printf("activated=%s\n", open ? "true" : "false");
    return r;
}

static int run_network(const struct arguments *a, const struct lmo_port *port, char *text, size_t size,
                       struct lmo_err *err)
{
    struct lmo_network *n = NULL;
    bool open = false;
    int r = lmo_network_ovn_open(a->ovsdb, a->openflow, a->bridge, &n, err);
    if (r < 0)
        return r;
    if (strcmp(a->words[0], "await") == 0)
        r = n->ops->await_installed(n, port, a->timeout_ms, err);
    else if (strcmp(a->words[0], "open") == 0)
        r = open_on_demand(n, port, a->timeout_ms, err);
    else
        r = n->ops->activated(n, port, &open, a->timeout_ms, err);
    if (r == 0 && strcmp(a->words[0], "activated") == 0)
        (void)snprintf(text, size, "activated=%s", open ? "true" : "false");
    n->ops->release(n, port);
    n->ops->close(n);
    return r;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {options, parse, commands, description, NULL, NULL, NULL};
    struct arguments a = {.northbound = "tcp:127.0.0.1:6641",
                          .southbound = "tcp:127.0.0.1:6642",
                          .ovsdb = "unix:/run/openvswitch/db.sock",
                          .openflow = "unix:/run/openvswitch/br-int.mgmt",
                          .bridge = "br-int",
                          .mac = "00:00:00:00:00:00",
                          .timeout_ms = 5000};
    if (argp_parse(&argp, argc, argv, 0, NULL, &a) != 0)
        return 2;
    lmo_log_set_level(a.verbose ? LMO_LOG_DEBUG : LMO_LOG_ERROR);
    struct lmo_port port = {0};
    if (a.count > 1)
        (void)snprintf(port.id, sizeof port.id, "%s", a.words[1]);
    (void)snprintf(port.mac, sizeof port.mac, "%s", a.mac);
    char text[1024] = "";
    struct lmo_err err = {0};
    const char *const w = a.words[0];
    bool local = a.count == 2 && (strcmp(w, "await") == 0 || strcmp(w, "activated") == 0 || strcmp(w, "open") == 0);
    uint64_t start = lmo_now_ns();
    int r = local ? run_network(&a, &port, text, sizeof text, &err) : run_fabric(&a, &port, text, sizeof text, &err);
    double ms = (double)(lmo_now_ns() - start) / 1e6;
    if (r < 0)
        (void)printf("%s: %s\n", lmo_err_name(r), err.text);
    else
        (void)printf("ok %.1f %s\n", ms, text);
    return r < 0;
}
