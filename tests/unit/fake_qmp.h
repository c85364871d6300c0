/* fake_qmp.h - a QMP service in a thread whose answers a test decides, command by command.
 *
 * It serves one client at a time on a UNIX socket, greets, and calls the test's handler for every command after
 * qmp_capabilities. The handler answers with fake_qmp_send() or not at all, and says whether to hang up. */
#ifndef LMO_TESTS_FAKE_QMP_H
#define LMO_TESTS_FAKE_QMP_H

#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct fake_qmp {
    char path[108];
    /* Returns false to hang up. Runs on the fake's thread. `connection` counts from 1. */
    bool (*handle)(struct fake_qmp *f, unsigned connection, const char *command, const json_t *message);
    void *arg;
    bool mute; /* accepts, but never greets: somebody else has the monitor */
    int listener, client, stop;
    unsigned connections;
    pthread_t thread;
};

static inline void fake_qmp_send(struct fake_qmp *f, const char *line)
{
    ssize_t n = send(f->client, line, strlen(line), MSG_NOSIGNAL);
    (void)n;
}

/* {"return": VALUE, "id": as in message}; `value` is JSON text. */
static inline void fake_qmp_return(struct fake_qmp *f, const json_t *message, const char *value)
{
    char *id = json_dumps(json_object_get(message, "id"), JSON_ENCODE_ANY);
    size_t size = strlen(value) + strlen(id) + 64;
    char *line = malloc(size);
    snprintf(line, size, "{\"return\": %s, \"id\": %s}\r\n", value, id);
    fake_qmp_send(f, line);
    free(line);
    free(id);
}

static inline void fake_qmp_error(struct fake_qmp *f, const json_t *message, const char *cls, const char *desc)
{
    char line[512];
    char *id = json_dumps(json_object_get(message, "id"), JSON_ENCODE_ANY);
    snprintf(line, sizeof(line), "{\"id\": %s, \"error\": {\"class\": \"%s\", \"desc\": \"%s\"}}\r\n", id, cls, desc);
    fake_qmp_send(f, line);
    free(id);
}

static inline void fake_qmp_event(struct fake_qmp *f, const char *name, const char *data)
{
    char line[512];
    snprintf(line, sizeof(line),
             "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"%s\", "
             "\"data\": %s}\r\n",
             name, data);
    fake_qmp_send(f, line);
}

static inline bool fake_qmp_line(struct fake_qmp *f, const char *line, size_t len)
{
    json_t *message = json_loadb(line, len, 0, NULL);
    const char *command = json_string_value(json_object_get(message, "execute"));
    bool go_on = true;
    if (command && strcmp(command, "qmp_capabilities") == 0)
        fake_qmp_return(f, message, "{}");
    else if (command)
        go_on = f->handle(f, f->connections, command, message);
    json_decref(message);
    return go_on;
}

static inline void fake_qmp_serve(struct fake_qmp *f)
{
    static const char greeting[] = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}, "
                                   "\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n";
    char *buf = malloc(1 << 16);
    size_t len = 0;
    if (!f->mute)
        fake_qmp_send(f, greeting);
    for (bool go_on = true; go_on;) {
        struct pollfd fds[2] = {{.fd = f->client, .events = POLLIN}, {.fd = f->stop, .events = POLLIN}};
        poll(fds, 2, -1);
        ssize_t n = fds[1].revents ? 0 : recv(f->client, buf + len, (1 << 16) - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
        for (char *end; go_on && (end = memchr(buf, '\n', len)) != NULL;) {
            size_t line = (size_t)(end - buf) + 1;
            go_on = fake_qmp_line(f, buf, line);
            memmove(buf, buf + line, len - line);
            len -= line;
        }
    }
    free(buf);
}

static inline void *fake_qmp_thread(void *arg)
{
    struct fake_qmp *f = arg;
    for (;;) {
        struct pollfd fds[2] = {{.fd = f->listener, .events = POLLIN}, {.fd = f->stop, .events = POLLIN}};
        poll(fds, 2, -1);
        if (fds[1].revents)
            return NULL;
        f->client = accept(f->listener, NULL, NULL);
        if (f->client < 0)
            continue;
        f->connections++;
        fake_qmp_serve(f);
        close(f->client);
    }
}

static inline void fake_qmp_start(struct fake_qmp *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", f->path);
    unlink(f->path);
    f->stop = eventfd(0, EFD_CLOEXEC);
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(f->listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(f->listener, 4) != 0 ||
        pthread_create(&f->thread, NULL, fake_qmp_thread, f) != 0)
        abort();
}

static inline void fake_qmp_stop(struct fake_qmp *f)
{
    uint64_t one = 1;
    ssize_t n = write(f->stop, &one, sizeof(one));
    (void)n;
    pthread_join(f->thread, NULL);
    close(f->listener);
    close(f->stop);
    unlink(f->path);
}

#endif
