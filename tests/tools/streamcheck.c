/* streamcheck.c - holds a TCP connection to a guest's stream server and judges every line that comes.
 *
 * The server (deploy/lab/guest/streamd.c) greets with "LMO-GUEST 1 boot=ID" and then sends a numbered line at a fixed
 * rate: N TICK DISK_SEQ DISK_ERRORS DISK_CONFLICTS MEMORY_ERRORS DIRTY_PAGES GUEST_NS. N counts without a gap from 0 on
 * each connection, TICK as long as that boot runs: so a missing or reordered byte shows, and so does a guest that was
 * started again or went back in time. A connection that ends is made again; how it ended is counted.
 *
 * The disk writer's and the memory checker's own counters ride in each line; first and last values are reported. */
#include "tests/tools/common.h"

#include <argp.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#define LINE_MAX_BYTES 512
#define RECONNECT_MS   100
#define CONNECT_MS     2000
#define BOOTS_MAX      8

const char *argp_program_version = "streamcheck 1";

enum { F_N, F_TICK, F_DISK_SEQ, F_DISK_ERRORS, F_DISK_CONFLICTS, F_MEMORY_ERRORS, F_DIRTY_PAGES, F_GUEST_NS, F_COUNT };

struct check {
    struct sockaddr_in to;
    const char *log_path;
    FILE *log;
    uint64_t duration_ns;
    int fd;
    bool connecting, greeted;
    char line[LINE_MAX_BYTES];
    size_t line_len;
    uint64_t expected; /* next N */
    /* what was seen */
    uint64_t connections, failed_connects, resets, closes, records, bytes, missing, reordered, malformed, tick_back;
    uint64_t disk_back, last_ns, last_us, stall_ns, stall_from_us, stall_to_us, first_us;
    uint64_t first[F_COUNT], last[F_COUNT];
    char boots[BOOTS_MAX][64];
    unsigned boot_count;
};

static const struct argp_option options[] = {
    {"duration", 'd', "S", 0, "Stop after this time (default: at SIGINT or SIGTERM)", 0},
    {"port", 'p', "PORT", 0, "The stream's port (default 7000)", 0},
    {"log", 'l', "FILE", 0, "Write one line per record: ARRIVED_US N TICK DISK_SEQ", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct check *c = state->input;
    switch (key) {
    case 'd': c->duration_ns = tool_seconds(arg, "--duration"); break;
    case 'p': c->to.sin_port = htons((uint16_t)tool_number(arg, "--port", 1, 65535)); break;
    case 'l': c->log_path = arg; break;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0 || inet_pton(AF_INET, arg, &c->to.sin_addr) != 1)
            argp_error(state, "ADDRESS must be one IPv4 address");
        break;
    case ARGP_KEY_END:
        if (state->arg_num != 1)
            argp_usage(state);
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    options, parse, "ADDRESS", "Reads a guest's numbered TCP stream and reports gaps, resets and stalls as JSON.",
    NULL,    NULL,  NULL};

/* ---------------------------------------------------------------- lines */

static void greeting(struct check *c)
{
    const char *boot = strstr(c->line, "boot=");
    if (strncmp(c->line, "LMO-GUEST 1 ", 12) != 0 || !boot) {
        c->malformed++;
        return;
    }
    boot += 5;
    if (c->boot_count > 0 && strcmp(c->boots[c->boot_count - 1], boot) == 0)
        return;
    if (c->boot_count < BOOTS_MAX)
        snprintf(c->boots[c->boot_count++], sizeof(c->boots[0]), "%.63s", boot);
    c->last[F_TICK] = c->last[F_DISK_SEQ] = 0; /* another boot counts anew */
}

static void record(struct check *c, uint64_t now_ns, uint64_t now_us)
{
    uint64_t f[F_COUNT];
    char *p = c->line;
    for (int i = 0; i < F_COUNT; i++) {
        char *end = NULL;
        f[i] = strtoull(p, &end, 10);
        if (end == p || *end != (i + 1 < F_COUNT ? ' ' : '\0')) {
            c->malformed++;
            return;
        }
        p = end + 1;
    }
    if (f[F_N] > c->expected)
        c->missing += f[F_N] - c->expected;
    else if (f[F_N] < c->expected)
        c->reordered++;
    c->expected = f[F_N] + 1;
    c->tick_back += f[F_TICK] < c->last[F_TICK];
    c->disk_back += f[F_DISK_SEQ] < c->last[F_DISK_SEQ];
    if (c->records++ == 0) {
        memcpy(c->first, f, sizeof(f));
        c->first_us = now_us;
    } else if (now_ns - c->last_ns > c->stall_ns) {
        c->stall_ns = now_ns - c->last_ns;
        c->stall_from_us = c->last_us;
        c->stall_to_us = now_us;
    }
    memcpy(c->last, f, sizeof(f));
    c->last_ns = now_ns;
    c->last_us = now_us;
    if (c->log)
        fprintf(c->log, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", now_us, f[F_N], f[F_TICK], f[F_DISK_SEQ]);
}

static void consume(struct check *c, const char *data, size_t len)
{
    uint64_t now_ns = tool_now_ns();
    uint64_t now_us = tool_realtime_us();
    c->bytes += len;
    for (size_t i = 0; i < len; i++) {
        if (data[i] != '\n') {
            if (c->line_len < LINE_MAX_BYTES - 1)
                c->line[c->line_len++] = data[i];
            continue;
        }
        c->line[c->line_len] = '\0';
        if (c->greeted)
            record(c, now_ns, now_us);
        else
            greeting(c);
        c->greeted = true;
        c->line_len = 0;
    }
}

/* ---------------------------------------------------------------- connection */

static void start_connect(struct check *c)
{
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        tool_die("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    c->connecting = true;
    c->greeted = false;
    c->line_len = 0;
    c->expected = 0;
    if (connect(c->fd, (struct sockaddr *)&c->to, sizeof(c->to)) != 0 && errno != EINPROGRESS) {
        close(c->fd);
        c->fd = -1;
        c->failed_connects++;
    }
}

static void end_connection(struct check *c, bool reset)
{
    close(c->fd);
    c->fd = -1;
    if (c->connecting)
        c->failed_connects++;
    else if (reset)
        c->resets++;
    else
        c->closes++;
}

static void on_ready(struct check *c)
{
    char data[16384];
    if (c->connecting) {
        int error = 0;
        socklen_t len = sizeof(error);
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error != 0) {
            end_connection(c, true);
            return;
        }
        c->connecting = false;
        c->connections++;
    }
    ssize_t n = recv(c->fd, data, sizeof(data), MSG_DONTWAIT);
    if (n > 0)
        consume(c, data, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        end_connection(c, n < 0);
}

static void run(struct check *c, int signals)
{
    uint64_t end_ns = c->duration_ns > 0 ? tool_now_ns() + c->duration_ns : UINT64_MAX;
    uint64_t next_try_ns = 0, give_up_ns = 0;
    for (;;) {
        uint64_t now = tool_now_ns();
        if (now >= end_ns)
            return;
        if (c->fd >= 0 && c->connecting && now >= give_up_ns)
            end_connection(c, true);
        if (c->fd < 0 && now >= next_try_ns) {
            start_connect(c);
            next_try_ns = now + RECONNECT_MS * TOOL_NS_PER_MS;
            give_up_ns = now + CONNECT_MS * TOOL_NS_PER_MS;
        }
        uint64_t until = end_ns;
        if (c->fd < 0 && next_try_ns < until)
            until = next_try_ns;
        if (c->fd >= 0 && c->connecting && give_up_ns < until)
            until = give_up_ns;
        uint64_t ms = until == UINT64_MAX ? 3600000 : (until - now) / TOOL_NS_PER_MS + 1;
        struct pollfd fds[2] = {{.fd = signals, .events = POLLIN},
                                {.fd = c->fd, .events = c->connecting ? POLLOUT : POLLIN}};
        if (poll(fds, 2, (int)(ms < 3600000 ? ms : 3600000)) < 0 && errno != EINTR)
            tool_die("poll: %s", strerror(errno));
        if (fds[0].revents)
            return;
        if (c->fd >= 0 && fds[1].revents)
            on_ready(c);
    }
}

static json_t *report(struct check *c)
{
    uint64_t now_ns = tool_now_ns();
    if (c->records > 0 && now_ns - c->last_ns > c->stall_ns) { /* silence up to the end is a stall too */
        c->stall_ns = now_ns - c->last_ns;
        c->stall_from_us = c->last_us;
        c->stall_to_us = tool_realtime_us();
    }
    json_t *boots = json_array();
    for (unsigned i = 0; i < c->boot_count; i++)
        json_array_append_new(boots, json_string(c->boots[i]));
    json_t *disk = json_object();
    tool_put(disk, "seq_first", tool_u64(c->first[F_DISK_SEQ]));
    tool_put(disk, "seq_last", tool_u64(c->last[F_DISK_SEQ]));
    tool_put(disk, "errors", tool_u64(c->last[F_DISK_ERRORS]));
    tool_put(disk, "conflicts", tool_u64(c->last[F_DISK_CONFLICTS]));
    tool_put(disk, "went_back", tool_u64(c->disk_back));
    json_t *out = json_object();
    tool_put(out, "records", tool_u64(c->records));
    tool_put(out, "bytes", tool_u64(c->bytes));
    tool_put(out, "missing", tool_u64(c->missing));
    tool_put(out, "reordered", tool_u64(c->reordered));
    tool_put(out, "malformed", tool_u64(c->malformed));
    tool_put(out, "resets", tool_u64(c->resets));
    tool_put(out, "closes", tool_u64(c->closes));
    tool_put(out, "connections", tool_u64(c->connections));
    tool_put(out, "reconnects", tool_u64(c->connections > 0 ? c->connections - 1 : 0));
    tool_put(out, "failed_connects", tool_u64(c->failed_connects));
    tool_put(out, "stall_ms", json_real(tool_ms(c->stall_ns)));
    tool_put(out, "stall_from_us", tool_u64(c->stall_from_us));
    tool_put(out, "stall_to_us", tool_u64(c->stall_to_us));
    tool_put(out, "first_us", tool_u64(c->first_us));
    tool_put(out, "last_us", tool_u64(c->last_us));
    tool_put(out, "ticks", tool_u64(c->last[F_TICK] - (c->boot_count > 1 ? 0 : c->first[F_TICK])));
    tool_put(out, "tick_went_back", tool_u64(c->tick_back));
    tool_put(out, "boots", boots);
    tool_put(out, "disk", disk);
    tool_put(out, "memory_errors", tool_u64(c->last[F_MEMORY_ERRORS]));
    tool_put(out, "dirty_pages", tool_u64(c->last[F_DIRTY_PAGES] - (c->boot_count > 1 ? 0 : c->first[F_DIRTY_PAGES])));
    return out;
}

int main(int argc, char **argv)
{
    struct check c = {.fd = -1};
    c.to.sin_family = AF_INET;
    c.to.sin_port = htons(7000);
    argp_parse(&argp, argc, argv, 0, NULL, &c);
    int signals = tool_signals();
    if (c.log_path && !(c.log = fopen(c.log_path, "we")))
        tool_die("cannot write %s: %s", c.log_path, strerror(errno));
    run(&c, signals);
    if (c.fd >= 0)
        close(c.fd);
    if (c.log && fclose(c.log) != 0)
        tool_die("cannot write %s: %s", c.log_path, strerror(errno));
    tool_print(report(&c), stdout, false);
    return 0;
}
