/* settings.c - see settings.h. */
#include "cli/settings.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "cli/suggest.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum level { FLAG, NAMED_CONTEXT, ENVIRONMENT, CONTEXT, NOWHERE };

static const char *look_up(const struct lmo_cli *cli, const struct lmo_settings *s, enum lmo_context_member member,
                           enum level *ret_level)
{
    const struct lmo_context_row *row = &lmo_context_rows[member];
    const char *v = cli->args.text[row->option];
    *ret_level = FLAG;
    if (!v || !*v) {
        /* A context that was named on the command line is nearer than the environment, which would hide half of it. */
        v = LMO_GIVEN(&cli->args, CONTEXT) ? lmo_contexts_get(&s->contexts, s->context, member) : NULL;
        *ret_level = NAMED_CONTEXT;
    }
    if (!v || !*v) {
        v = cli->env(row->variable);
        *ret_level = ENVIRONMENT;
    }
    if ((!v || !*v) && *s->context) {
        v = lmo_contexts_get(&s->contexts, s->context, member);
        *ret_level = CONTEXT;
    }
    if (v && *v)
        return v;
    *ret_level = NOWHERE;
    return NULL;
}

int lmo_settings_check_private(const char *path, struct lmo_err *err)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return lmo_fail(err, LMO_E_INVALID, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return lmo_fail(err, LMO_E_INVALID, "%s is not a regular file", path);
    if (st.st_mode & (S_IRWXO | S_IWGRP)) {
        return lmo_fail(err, LMO_E_FORBIDDEN, "%s has mode %04o, so others can read or change it. Run: chmod 600 %s",
                        path, (unsigned)st.st_mode & 07777, path);
    }
    return 0;
}

static int read_token(const char *path, char ret_token[LMO_TOKEN_MAX], struct lmo_err *err)
{
    char *text = NULL;
    size_t len = 0;
    int rc = lmo_settings_check_private(path, err);
    if (rc == 0)
        rc = lmo_fs_read_file(path, 4096, &text, &len, err);
    if (rc < 0)
        return rc;
    size_t from = strspn(text, " \t\r\n"), n = strcspn(text + from, " \t\r\n");
    bool good = n > 0 && n < LMO_TOKEN_MAX && text[from + n + strspn(text + from + n, " \t\r\n")] == '\0';
    for (size_t i = 0; good && i < n; i++)
        good = text[from + i] > ' ' && text[from + i] < 0x7f;
    if (good) {
        memcpy(ret_token, text + from, n);
        ret_token[n] = '\0';
    }
    explicit_bzero(text, len);
    free(text);
    return good ? 0
                : lmo_fail(err, LMO_E_INVALID, "%s must hold one token: one word of at most %d characters", path,
                           LMO_TOKEN_MAX - 1);
}

static int unknown_context(const struct lmo_settings *s, struct lmo_err *err)
{
    struct lmo_suggest near = {.word = s->context};
    const char *name;
    for (size_t i = 0; (name = lmo_contexts_at(&s->contexts, i)); i++)
        lmo_suggest_add(&near, name);
    char text[LMO_SUGGEST_TEXT_MAX];
    return lmo_fail(err, LMO_E_INVALID, "there is no context \"%.63s\".%s `lmo context list` shows them", s->context,
                    lmo_suggest_text(&near, "", text));
}

/* One way to say who asks. */
static int choose_credential(struct lmo_settings *s, const enum level *from, struct lmo_err *err)
{
    enum level cert = from[LMO_CONTEXT_CERT] < from[LMO_CONTEXT_KEY] ? from[LMO_CONTEXT_CERT] : from[LMO_CONTEXT_KEY];
    enum level token = from[LMO_CONTEXT_TOKEN_FILE];
    if (cert == NOWHERE || token == NOWHERE)
        return 0;
    if (cert == token) {
        return lmo_fail(err, LMO_E_INVALID, "a certificate and a token are both set %s: give one of them",
                        cert == FLAG          ? "on the command line"
                        : cert == ENVIRONMENT ? "in the environment"
                                              : "in the context");
    }
    if (cert < token) {
        s->text[LMO_CONTEXT_TOKEN_FILE] = NULL;
    } else {
        s->text[LMO_CONTEXT_CERT] = NULL;
        s->text[LMO_CONTEXT_KEY] = NULL;
    }
    return 0;
}

static int missing(const struct lmo_settings *s, enum lmo_context_member member, struct lmo_err *err)
{
    const struct lmo_context_row *row = &lmo_context_rows[member];
    const char *help =
        member == LMO_CONTEXT_CERT ? "a certificate of role operator comes from `lmo pki issue`" : row->help;
    const char *token = member == LMO_CONTEXT_CERT ? ", or --token-file" : "";
    if (*s->context) {
        return lmo_fail(err, LMO_E_INVALID, "missing --%s (or %s%s; the context %s does not set %s): %s",
                        lmo_option_rows[row->option].long_name, row->variable, token, s->context, row->key, help);
    }
    return lmo_fail(err, LMO_E_INVALID, "missing --%s (or %s%s): %s. `lmo context set NAME --%s ...` keeps it",
                    lmo_option_rows[row->option].long_name, row->variable, token, help,
                    lmo_option_rows[row->option].long_name);
}

int lmo_settings_load(const struct lmo_cli *cli, struct lmo_settings *ret, struct lmo_err *err)
{
    enum level from[LMO_CONTEXT_MEMBERS];
    *ret = (struct lmo_settings){.context = ""};
    int rc = lmo_contexts_load(cli, &ret->contexts, err);
    if (rc < 0)
        return rc;
    ret->context = lmo_contexts_current(cli, &ret->contexts);
    if (*ret->context && !lmo_contexts_find(&ret->contexts, ret->context))
        return unknown_context(ret, err);
    for (int m = 0; m < LMO_CONTEXT_MEMBERS; m++)
        ret->text[m] = look_up(cli, ret, (enum lmo_context_member)m, &from[m]);
    rc = choose_credential(ret, from, err);
    if (rc < 0)
        return rc;
    static const enum lmo_context_member needed[] = {LMO_CONTEXT_URL, LMO_CONTEXT_CA, LMO_CONTEXT_CERT,
                                                     LMO_CONTEXT_KEY};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        bool token_serves = needed[i] >= LMO_CONTEXT_CERT && ret->text[LMO_CONTEXT_TOKEN_FILE];
        if (!ret->text[needed[i]] && !token_serves)
            return missing(ret, needed[i], err);
    }
    if (ret->text[LMO_CONTEXT_TOKEN_FILE])
        return read_token(ret->text[LMO_CONTEXT_TOKEN_FILE], ret->token, err);
    return lmo_settings_check_private(ret->text[LMO_CONTEXT_KEY], err);
}

void lmo_settings_release(struct lmo_settings *s)
{
    explicit_bzero(s->token, sizeof s->token);
    lmo_contexts_release(&s->contexts);
}
