/* generate_main.c - the program `lmo-docs`, of the build: `lmo-docs share DIR [DATE]` writes the pages in DIR/man/man1,
 * DIR/bash-completion/completions/lmo and DIR/zsh/vendor-completions/_lmo; `lmo-docs reference FILE` writes the reference. Files
 * that are the same already are left alone. */
#include "cli/generate.h"
#include "base/fs.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef bool write_fn(const char *what, const char *date, FILE *out);

static bool write_man(const char *what, const char *date, FILE *out)
{
    lmo_generate_man(*what ? what : NULL, date, out);
    return true;
}
static bool write_completion(const char *what, const char *date, FILE *out)
{
    (void)date;
    return lmo_generate_completion(what, out);
}
static bool write_reference(const char *what, const char *date, FILE *out)
{
    (void)what, (void)date;
    lmo_generate_reference(out);
    return true;
}

/* True: the file holds what it should. */
static bool put(const char *dir, const char *name, write_fn *write, const char *what, const char *date)
{
    char path[1024], *text = NULL, *old = NULL;
    size_t len = 0, old_len = 0;
    struct lmo_err err = {0};
    snprintf(path, sizeof path, "%s%s%s", dir, *dir ? "/" : "", name);
    FILE *f = open_memstream(&text, &len);
    bool good = f && write(what, date, f);
    good = f && fclose(f) == 0 && good;
    char *slash = strrchr(path, '/');
    if (good && slash) {
        *slash = '\0';
        good = lmo_fs_mkdir_p(path, 0755, &err) == 0;
        *slash = '/';
    }
    bool same = good && lmo_fs_read_file(path, (size_t)1 << 20, &old, &old_len, NULL) == 0 && old_len == len &&
                memcmp(old, text, len) == 0;
    if (good && !same)
        good = lmo_fs_write_atomic(path, text, len, 0644, &err) == 0;
    if (!good)
        fprintf(stderr, "lmo-docs: %s: %s\n", path, err.text);
    free(text);
    free(old);
    return good;
}

/* Of the build, for reproducible ones of SOURCE_DATE_EPOCH. */
static void today(char ret[16])
{
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    time_t t = epoch ? (time_t)strtoll(epoch, NULL, 10) : time(NULL);
    struct tm tm;
    if (!gmtime_r(&t, &tm) || strftime(ret, 16, "%Y-%m-%d", &tm) == 0)
        strcpy(ret, "1970-01-01");
}

int main(int argc, char **argv)
{
    char group[32], name[80], date[16];
    today(date);
    if (argc == 3 && strcmp(argv[1], "reference") == 0)
        return put("", argv[2], write_reference, "", date) ? 0 : 1;
    if (argc < 3 || argc > 4 || strcmp(argv[1], "share") != 0) {
        fputs("usage: lmo-docs share DIR [YYYY-MM-DD] | lmo-docs reference FILE\n", stderr);
        return 2;
    }
    const char *when = argc == 4 ? argv[3] : date;
    bool good = put(argv[2], "man/man1/lmo.1", write_man, "", when);
    for (size_t i = 0; lmo_generate_group(i, group); i++) {
        snprintf(name, sizeof name, "man/man1/lmo-%s.1", group);
        good = put(argv[2], name, write_man, group, when) && good;
    }
    good = put(argv[2], "bash-completion/completions/lmo", write_completion, "bash", when) && good;
    good = put(argv[2], "zsh/vendor-completions/_lmo", write_completion, "zsh", when) && good;
    return good ? 0 : 1;
}
