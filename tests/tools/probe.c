/* probe.c - a UDP probe that sends at a fixed rate whatever happens, and says what became of each datagram.
 *
 * The schedule is absolute: probe N leaves at start + N * interval, also when replies are late, lost, or the sender
 * itself was held up (then it catches up and counts the delay). ping slows down while it loses, which hides the loss.
 * A reply is late, not lost, as long as it comes before the grace at the end is over.
 *
 * One thread sends, one receives: a slow receiver must not disturb the schedule. Each sequence number has a slot that
 * the sender fills before sending and the receiver after receiving; the report is made when both have ended.
 *
 * The echoing side sends every datagram back as it came. Payload: "LMOP", a run's random id, the sequence number, the
 * time of sending; replies of other runs are ignored.
 *
 * --log has one line per probe: SEQ SENT_US RECEIVED_US DUPLICATES (CLOCK_REALTIME, 0: never received). */
#include "tests/tools/common.h"

#include <argp.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define PROBES_MAX      UINT64_C(4194304) /* 5.8 hours at 5 ms */
#define WINDOWS_MAX     64
#define LOST_LISTED_MAX 1000
#define PAYLOAD_MIN     32

const char *argp_program_version = "probe 1";

struct slot {
    uint64_t sent_ns, sent_us;
    _Atomic uint64_t received_ns; /* of the first reply; 0: none */
    uint64_t received_us;
    _Atomic uint32_t replies;
};

/* A pause of the guest, to line the losses up with. */
struct window {
    uint64_t start_us, end_us;
};

struct probe {
    struct sockaddr_in to;
    uint64_t interval_ns, duration_ns, grace_ns;
    size_t size;
    const char *log, *events, *source;
    unsigned window_count;
    struct window windows[WINDOWS_MAX];
    int fd, stop; /* stop: eventfd, ends the receiver */
    uint32_t run;
    struct slot *slots;
    _Atomic uint32_t sent;
    uint32_t capacity;
    uint64_t send_errors, late_sends, worst_send_delay_ns;
    /* receiver */
    uint64_t duplicates, reordered, strangers, replies;
    uint64_t first_ns, last_ns, gap_ns, gap_from_us, gap_to_us;
    uint32_t highest;
    uint64_t last_us;
};

/* ---------------------------------------------------------------- options */

enum { OPT_PAUSE_START = 256, OPT_PAUSE_END, OPT_SOURCE };

static const struct argp_option options[] = {
    {"interval", 'i', "MS", 0, "Time between two probes (default 5)", 0},
    {"duration", 'd', "S", 0, "Stop sending after this time (default: at SIGINT or SIGTERM)", 0},
    {"grace", 'g', "S", 0, "Wait this long for late replies after the last probe (default 1)", 0},
    {"size", 's', "BYTES", 0, "Payload size (default 64)", 0},
    {"port", 'p', "PORT", 0, "UDP echo port (default 7001)", 0},
    {"source", OPT_SOURCE, "ADDRESS", 0, "Send from this address", 0},
    {"log", 'l', "FILE", 0, "Write one line per probe: SEQ SENT_US RECEIVED_US DUPLICATES", 0},
    {"events", 'e', "FILE", 0, "Pauses of the guest, one per line: START_US END_US; read when the run is over", 0},
    {"pause-start", OPT_PAUSE_START, "US", 0, "Start of a pause (CLOCK_REALTIME, microseconds)", 0},
    {"pause-end", OPT_PAUSE_END, "US", 0, "Its end", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct probe *p = state->input;
    switch (key) {
    case 'i':
        p->interval_ns = (uint64_t)(tool_seconds(arg, "--interval") / 1000);
        if (p->interval_ns < 50000)
            argp_error(state, "--interval must be at least 0.05 ms");
        break;
    case 'd': p->duration_ns = tool_seconds(arg, "--duration"); break;
    case 'g': p->grace_ns = tool_seconds(arg, "--grace"); break;
    case 's': p->size = tool_number(arg, "--size", PAYLOAD_MIN, 1472); break;
    case 'p': p->to.sin_port = htons((uint16_t)tool_number(arg, "--port", 1, 65535)); break;
    case 'l': p->log = arg; break;
    case 'e': p->events = arg; break;
    case OPT_SOURCE: p->source = arg; break;
    case OPT_PAUSE_START:
        if (p->window_count == WINDOWS_MAX)
            argp_error(state, "too many pauses");
        p->windows[p->window_count++].start_us = tool_number(arg, "--pause-start", 1, INT64_MAX);
        break;
    case OPT_PAUSE_END:
        if (p->window_count == 0)
            argp_error(state, "--pause-end belongs to a --pause-start before it");
        p->windows[p->window_count - 1].end_us = tool_number(arg, "--pause-end", 1, INT64_MAX);
        break;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0 || inet_pton(AF_INET, arg, &p->to.sin_addr) != 1)
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
    options,
    parse,
    "ADDRESS",
    "Probes ADDRESS (a UDP echo service) at a fixed rate and reports loss, duplicates, gaps and round trips as JSON.",
    NULL,
    NULL,
    NULL};

/* ---------------------------------------------------------------- receiving */

static void received(struct probe *p, uint32_t seq, uint64_t now_ns, uint64_t now_us)
{
    struct slot *s = &p->slots[seq];
    p->replies++;
    if (p->first_ns == 0)
        p->first_ns = now_ns;
    else if (now_ns - p->last_ns > p->gap_ns) {
        p->gap_ns = now_ns - p->last_ns;
        p->gap_from_us = p->last_us;
        p->gap_to_us = now_us;
    }
    p->last_ns = now_ns;
    p->last_us = now_us;
    if (atomic_fetch_add(&s->replies, 1) > 0) {
        p->duplicates++;
        return;
    }
    s->received_us = now_us;
    atomic_store(&s->received_ns, now_ns);
    if (seq < p->highest)
        p->reordered++;
    else
        p->highest = seq;
}

static void *receive(void *arg)
{
    struct probe *p = arg;
    struct pollfd fds[2] = {{.fd = p->fd, .events = POLLIN}, {.fd = p->stop, .events = POLLIN}};
    while (fds[1].revents == 0) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            break;
        for (;;) {
            uint8_t data[2048];
            ssize_t n = recv(p->fd, data, sizeof(data), MSG_DONTWAIT);
            uint64_t now_ns = tool_now_ns();
            uint64_t now_us = tool_realtime_us();
            if (n < 0)
                break; /* nothing more; or an ICMP error about an earlier probe, which is a loss like any other */
            uint32_t run, seq;
            memcpy(&run, data + 4, sizeof(run));
            memcpy(&seq, data + 8, sizeof(seq));
            if (n < PAYLOAD_MIN || memcmp(data, "LMOP", 4) != 0 || run != p->run || seq >= atomic_load(&p->sent))
                p->strangers++;
            else
                received(p, seq, now_ns, now_us);
        }
    }
    return NULL;
}

/* ---------------------------------------------------------------- sending */

/* Sleeps until the absolute time; returns false if a signal asked for the end. */
static bool sleep_until(uint64_t when_ns, int signals)
{
    struct timespec ts = {.tv_sec = (time_t)(when_ns / TOOL_NS_PER_S), .tv_nsec = (long)(when_ns % TOOL_NS_PER_S)};
    struct signalfd_siginfo info;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
        continue;
    return read(signals, &info, sizeof(info)) != (ssize_t)sizeof(info);
}

static void send_all(struct probe *p, int signals)
{
    uint8_t data[2048] = "LMOP";
    memcpy(data + 4, &p->run, sizeof(p->run));
    uint64_t start_ns = tool_now_ns() + TOOL_NS_PER_MS;
    for (uint32_t seq = 0; seq < p->capacity; seq++) {
        uint64_t due_ns = start_ns + seq * p->interval_ns;
        if ((p->duration_ns > 0 && due_ns - start_ns >= p->duration_ns) || !sleep_until(due_ns, signals))
            break;
        struct slot *s = &p->slots[seq];
        s->sent_us = tool_realtime_us();
        s->sent_ns = tool_now_ns();
        uint64_t delay_ns = s->sent_ns - due_ns;
        p->late_sends += delay_ns > p->interval_ns;
        if (delay_ns > p->worst_send_delay_ns)
            p->worst_send_delay_ns = delay_ns;
        memcpy(data + 8, &seq, sizeof(seq));
        memcpy(data + 16, &s->sent_us, sizeof(s->sent_us));
        atomic_store(&p->sent, seq + 1); /* before the datagram leaves: its reply may be quick */
        if (send(p->fd, data, p->size, MSG_DONTWAIT) < 0 && send(p->fd, data, p->size, MSG_DONTWAIT) < 0)
            p->send_errors++; /* twice: the first may only have reported an earlier probe's ICMP error */
    }
    sleep_until(tool_now_ns() + p->grace_ns, signals);
}

/* ---------------------------------------------------------------- the report */

static void read_events(struct probe *p)
{
    FILE *f = fopen(p->events, "re");
    if (!f)
        tool_die("cannot read %s: %s", p->events, strerror(errno));
    while (p->window_count < WINDOWS_MAX && fscanf(f, "%" SCNu64 " %" SCNu64, &p->windows[p->window_count].start_us,
                                                   &p->windows[p->window_count].end_us) == 2)
        p->window_count++;
    fclose(f);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static json_t *round_trips(struct probe *p, uint32_t sent)
{
    static const struct {
        const char *name;
        double at;
    } points[] = {
        {"min_ms", 0}, {"p50_ms", 0.5}, {"p90_ms", 0.9}, {"p99_ms", 0.99}, {"max_ms", 1},
    };
    uint64_t *rtt = calloc(sent + 1, sizeof(*rtt));
    size_t n = 0;
    if (!rtt)
        tool_die("out of memory");
    for (uint32_t i = 0; i < sent; i++)
        if (atomic_load(&p->slots[i].received_ns) > 0)
            rtt[n++] = atomic_load(&p->slots[i].received_ns) - p->slots[i].sent_ns;
    qsort(rtt, n, sizeof(*rtt), compare);
    json_t *out = json_object();
    for (size_t i = 0; n > 0 && i < sizeof(points) / sizeof(points[0]); i++)
        tool_put(out, points[i].name, json_real(tool_ms(rtt[(size_t)(points[i].at * (double)(n - 1))])));
    free(rtt);
    return out;
}

/* Losses by when they were sent: before, in, or after the pauses. */
static json_t *line_up(struct probe *p, uint32_t sent)
{
    json_t *out = json_array();
    for (unsigned w = 0; w < p->window_count; w++) {
        const struct window *win = &p->windows[w];
        uint64_t in = 0, sent_in = 0, after = 0;
        for (uint32_t i = 0; i < sent; i++) {
            const struct slot *s = &p->slots[i];
            bool inside = s->sent_us >= win->start_us && s->sent_us <= win->end_us;
            sent_in += inside;
            if (atomic_load(&s->received_ns) > 0)
                continue;
            in += inside;
            after += s->sent_us > win->end_us && s->sent_us <= win->end_us + 2000000;
        }
        json_t *one = json_object();
        tool_put(one, "start_us", tool_u64(win->start_us));
        tool_put(one, "end_us", tool_u64(win->end_us));
        tool_put(one, "pause_ms", json_real((double)(win->end_us - win->start_us) / 1000.0));
        tool_put(one, "sent_in_pause", tool_u64(sent_in));
        tool_put(one, "lost_in_pause", tool_u64(in));
        tool_put(one, "lost_within_2s_after", tool_u64(after));
        json_array_append_new(out, one);
    }
    return out;
}

/* Silence up to the end is a gap too: a guest that never answers again must not look as if nothing was missing. */
static void close_last_gap(struct probe *p, uint32_t sent)
{
    const struct slot *last = sent > 0 ? &p->slots[sent - 1] : NULL;
    uint64_t since_ns = p->last_ns > 0 ? p->last_ns : (sent > 0 ? p->slots[0].sent_ns : 0);
    if (!last || atomic_load(&last->received_ns) > 0 || last->sent_ns <= since_ns + p->gap_ns)
        return;
    p->gap_ns = last->sent_ns - since_ns;
    p->gap_from_us = p->last_us > 0 ? p->last_us : p->slots[0].sent_us;
    p->gap_to_us = last->sent_us;
}

static json_t *report(struct probe *p)
{
    uint32_t sent = atomic_load(&p->sent);
    close_last_gap(p, sent);
    uint64_t lost = 0;
    json_t *times = json_array();
    for (uint32_t i = 0; i < sent; i++) {
        if (atomic_load(&p->slots[i].received_ns) > 0)
            continue;
        if (++lost <= LOST_LISTED_MAX)
            json_array_append_new(times, tool_u64(p->slots[i].sent_us));
    }
    json_t *out = json_object();
    tool_put(out, "sent", tool_u64(sent));
    tool_put(out, "received", tool_u64(sent - lost));
    tool_put(out, "lost", tool_u64(lost));
    tool_put(out, "dup", tool_u64(p->duplicates));
    tool_put(out, "reordered", tool_u64(p->reordered));
    tool_put(out, "longest_gap_ms", json_real(tool_ms(p->gap_ns)));
    tool_put(out, "longest_gap_from_us", tool_u64(p->gap_from_us));
    tool_put(out, "longest_gap_to_us", tool_u64(p->gap_to_us));
    tool_put(out, "rtt", round_trips(p, sent));
    tool_put(out, "interval_ms", json_real(tool_ms(p->interval_ns)));
    tool_put(out, "started_us", tool_u64(sent > 0 ? p->slots[0].sent_us : 0));
    tool_put(out, "ended_us", tool_u64(sent > 0 ? p->slots[sent - 1].sent_us : 0));
    tool_put(out, "send_errors", tool_u64(p->send_errors));
    tool_put(out, "late_sends", tool_u64(p->late_sends));
    tool_put(out, "worst_send_delay_ms", json_real(tool_ms(p->worst_send_delay_ns)));
    tool_put(out, "strangers", tool_u64(p->strangers));
    tool_put(out, "pauses", line_up(p, sent));
    tool_put(out, "lost_sent_us", times);
    return out;
}

static void write_log(struct probe *p)
{
    FILE *f = fopen(p->log, "we");
    if (!f)
        tool_die("cannot write %s: %s", p->log, strerror(errno));
    for (uint32_t i = 0; i < atomic_load(&p->sent); i++) {
        const struct slot *s = &p->slots[i];
        uint32_t replies = atomic_load(&s->replies);
        fprintf(f, "%" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRIu32 "\n", i, s->sent_us, s->received_us,
                replies > 1 ? replies - 1 : 0);
    }
    if (fclose(f) != 0)
        tool_die("cannot write %s: %s", p->log, strerror(errno));
}

int main(int argc, char **argv)
{
    struct probe p = {.interval_ns = 5 * TOOL_NS_PER_MS, .grace_ns = TOOL_NS_PER_S, .size = 64};
    p.to.sin_family = AF_INET;
    p.to.sin_port = htons(7001);
    argp_parse(&argp, argc, argv, 0, NULL, &p);
    int signals = tool_signals();
    uint64_t wanted = p.duration_ns > 0 ? p.duration_ns / p.interval_ns + 1 : PROBES_MAX;
    p.capacity = (uint32_t)(wanted < PROBES_MAX ? wanted : PROBES_MAX);
    p.slots = calloc(p.capacity, sizeof(*p.slots));
    p.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    p.stop = eventfd(0, EFD_CLOEXEC);
    p.run = (uint32_t)(tool_realtime_us() ^ ((uint64_t)getpid() << 16));
    struct sockaddr_in from = {.sin_family = AF_INET};
    int room = 4 << 20; /* all replies held back by a pause arrive at once */
    if (!p.slots || p.fd < 0 || p.stop < 0)
        tool_die("cannot start: %s", strerror(errno));
    if (setsockopt(p.fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) != 0)
        setsockopt(p.fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    if (p.source && inet_pton(AF_INET, p.source, &from.sin_addr) != 1)
        tool_die("--source: '%s' is no IPv4 address", p.source);
    if (bind(p.fd, (struct sockaddr *)&from, sizeof(from)) != 0 ||
        connect(p.fd, (struct sockaddr *)&p.to, sizeof(p.to)) != 0)
        tool_die("cannot use the address: %s", strerror(errno));
    setpriority(PRIO_PROCESS, 0, -10); /* without the right to it, the delays are counted all the same */

    pthread_t receiver;
    uint64_t one = 1;
    if (pthread_create(&receiver, NULL, receive, &p) != 0)
        tool_die("cannot start a thread");
    send_all(&p, signals);
    if (write(p.stop, &one, sizeof(one)) != (ssize_t)sizeof(one))
        tool_die("cannot stop the receiver");
    pthread_join(receiver, NULL);
    if (p.events)
        read_events(&p);
    if (p.log)
        write_log(&p);
    tool_print(report(&p), stdout, false);
    free(p.slots);
    return 0;
}
