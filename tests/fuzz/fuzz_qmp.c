/* What QEMU's monitor sends: greetings, replies and events, as a client with its own thread reads them from a socket. */
#include "fuzz.h"

#include "base/log.h"
#include "workers/drivers/qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int listener = -1;

static void remove_socket(void)
{
    (void)unlink(address.sun_path);
}

static void begin(void)
{
    lmo_log_set_level(LMO_LOG_ERROR);
    snprintf(address.sun_path, sizeof address.sun_path, "/dev/shm/lmo-fuzz-qmp-%d", (int)getpid());
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    lmo_assert(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 8) == 0);
    lmo_assert(atexit(remove_socket) == 0);
}

static void on_event(void *arg, const char *name, const json_t *data)
{
    (void)data;
    *(size_t *)arg += strlen(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char greeting[] = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n{\"return\": {}, \"id\": 1}\r\n";
    size_t seen = 0;
    struct lmo_err err = {0};
    struct lmo_qmp *q = NULL;
    char buf[4096];
    if (listener < 0) {
        begin();
    }
    const struct lmo_qmp_config config = {.path = address.sun_path, .on_event = on_event, .arg = &seen};
    lmo_assert(lmo_qmp_open(&config, &q, &err) == 0);
    int fd;
    while ((fd = accept(listener, NULL, NULL)) < 0) { /* libFuzzer's clock interrupts */
        lmo_assert(errno == EINTR);
    }
    if (size > 0 && (data[0] & 1)) { /* negotiated first; else what comes is the greeting */
        (void)!send(fd, greeting, sizeof greeting - 1, MSG_NOSIGNAL);
    }
    if (size > 1) {
        (void)!send(fd, data + 1, size - 1, MSG_NOSIGNAL);
    }
    (void)shutdown(fd, SHUT_WR);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while ((poll(&p, 1, 1000) > 0 || errno == EINTR) && read(fd, buf, sizeof buf) > 0) { /* until it has read all, and hangs up */
    }
    lmo_qmp_close(q);
    close(fd);
    return 0;
}
