/* receiver.h - runs receiver.py for a test, and reads what it was sent. */
#ifndef LMO_TESTS_UNIT_RECEIVER_H
#define LMO_TESTS_UNIT_RECEIVER_H

#include "base/fs.h"
#include "tmpdir.h"

#include <check.h>
#include <jansson.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    pid_t pid;
    int keep; /* its standard input: it ends when this is closed */
    unsigned port;
    char dir[TMPDIR_MAX];
} receiver;

static inline void receiver_start(const char *cert, const char *key)
{
    char file[128], script[512], text[16] = "";
    int in[2], out[2];
    tmpdir_make(receiver.dir, "receiver");
    snprintf(file, sizeof file, "%s/got", receiver.dir);
    snprintf(script, sizeof script, "%s/tests/unit/receiver.py", LMO_SOURCE_DIR);
    ck_assert(pipe(in) == 0 && pipe(out) == 0);
    receiver.pid = fork();
    if (receiver.pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        for (int fd = 3; fd < 256; fd++) {
            close(fd);
        }
        execl("/usr/bin/python3", "/usr/bin/python3", "-I", script, file, cert, key, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    receiver.keep = in[1];
    for (size_t n = 0; n < sizeof text - 1 && read(out[0], text + n, 1) == 1 && text[n] != '\n'; n++) {
        continue;
    }
    close(out[0]);
    receiver.port = (unsigned)strtoul(text, NULL, 10);
    ck_assert_uint_gt(receiver.port, 0);
}

static inline void receiver_stop(void)
{
    close(receiver.keep);
    waitpid(receiver.pid, NULL, 0);
    tmpdir_remove(receiver.dir);
}

static inline void receiver_put(const char *suffix, const char *text)
{
    char path[128], new[136];
    snprintf(path, sizeof path, "%s/got%s", receiver.dir, suffix);
    snprintf(new, sizeof new, "%s.new", path);
    FILE *f = fopen(new, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
    ck_assert_int_eq(rename(new, path), 0);
}

/* What it was sent so far, in order; owned by the caller. */
static inline json_t *receiver_got(void)
{
    char path[128], *text = NULL, *line, *rest = NULL;
    json_t *array = json_array();
    snprintf(path, sizeof path, "%s/got", receiver.dir);
    if (lmo_fs_read_file(path, 64U << 20, &text, NULL, NULL) == 0) {
        for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
            json_t *one = json_loads(line, 0, NULL);
            if (one) { /* the last one may be half written */
                json_array_append_new(array, one);
            }
        }
    }
    free(text);
    return array;
}

static inline size_t receiver_count(void)
{
    json_t *got = receiver_got();
    size_t n = json_array_size(got);
    json_decref(got);
    return n;
}

static inline const char *receiver_header(const json_t *one, const char *name)
{
    const char *text = json_string_value(json_object_get(json_object_get(one, "headers"), name));
    return text ? text : "";
}

static inline json_t *receiver_body(const json_t *one)
{
    return json_loads(json_string_value(json_object_get(one, "body")), 0, NULL);
}

#endif
