/* contexts.c - see contexts.h. */
#include "cli/contexts.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "base/id.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define SYSTEM_PATH "/etc/lmo/lmo.conf"
#define FILE_MAX    ((size_t)256 * 1024)

const struct lmo_context_row lmo_context_rows[LMO_CONTEXT_MEMBERS] = {
    [LMO_CONTEXT_URL] = {"url", "LMO_URL", LMO_OPT_URL, "where the coordinator is, https://HOST:PORT"},
    [LMO_CONTEXT_CA] = {"ca", "LMO_CA", LMO_OPT_CA, "CA certificates to trust"},
    [LMO_CONTEXT_CRL] = {"crl", "LMO_CRL", LMO_OPT_CRL, "revocation list to honour"},
    [LMO_CONTEXT_CERT] = {"cert", "LMO_CERT", LMO_OPT_CERT, "own certificate"},
    [LMO_CONTEXT_KEY] = {"key", "LMO_KEY", LMO_OPT_KEY, "own private key"},
    [LMO_CONTEXT_TOKEN_FILE] = {"token_file", "LMO_TOKEN_FILE", LMO_OPT_TOKEN_FILE,
                                "file with a bearer token, instead of cert and key"},
};

static const struct lmo_conf_key keys[] = {
    {"lmo", "context", LMO_CONF_NAME, false, NULL, 0, 0, "the context in force when none is named"},
    {"context *", "url", LMO_CONF_STRING, false, NULL, 0, LMO_URL_MAX - 1,
     "where the coordinator is, https://HOST:PORT"},
    {"context *", "ca", LMO_CONF_PATH, false, NULL, 0, 0, "CA certificates to trust"},
    {"context *", "crl", LMO_CONF_PATH, false, NULL, 0, 0, "revocation list to honour"},
    {"context *", "cert", LMO_CONF_PATH, false, NULL, 0, 0, "own certificate"},
    {"context *", "key", LMO_CONF_PATH, false, NULL, 0, 0, "own private key; nobody else may read it"},
    {"context *", "token_file", LMO_CONF_PATH, false, NULL, 0, 0, "file with a bearer token; nobody else may read it"},
};
#define KEY_COUNT (sizeof keys / sizeof keys[0])

static int load_one(const char *path, struct lmo_conf **ret, struct lmo_err *err)
{
    struct stat st;
    *ret = NULL;
    if (stat(path, &st) < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return 0;
        return lmo_fail(err, LMO_E_IO, "%s: %s", path, strerror(errno));
    }
    if (st.st_mode & (S_IWGRP | S_IWOTH)) {
        return lmo_fail(err, LMO_E_FORBIDDEN, "%s has mode %04o: others could say whom you trust. Run: chmod go-w %s",
                        path, (unsigned)st.st_mode & 07777, path);
    }
    return lmo_conf_load(path, keys, KEY_COUNT, ret, err);
}

int lmo_contexts_load(const struct lmo_cli *cli, struct lmo_contexts *ret, struct lmo_err *err)
{
    const char *xdg = cli->env("XDG_CONFIG_HOME"), *home = cli->env("HOME");
    struct lmo_contexts c = {.system_path = cli->system_config ? cli->system_config : SYSTEM_PATH};
    int n = 0;
    if (xdg && *xdg == '/') /* a relative one is to be ignored, says the base directory specification */
        n = snprintf(c.user_path, sizeof c.user_path, "%s/lmo/config", xdg);
    else if (home && *home)
        n = snprintf(c.user_path, sizeof c.user_path, "%s/.config/lmo/config", home);
    if (n < 0 || (size_t)n >= sizeof c.user_path)
        return lmo_fail(err, LMO_E_INVALID, "XDG_CONFIG_HOME or HOME is too long");
    int rc = c.user_path[0] ? load_one(c.user_path, &c.user, err) : 0;
    if (rc == 0)
        rc = load_one(c.system_path, &c.system, err);
    if (rc < 0) {
        lmo_contexts_release(&c);
        return rc;
    }
    *ret = c;
    return 0;
}

void lmo_contexts_release(struct lmo_contexts *c)
{
    c->user = lmo_conf_free(c->user);
    c->system = lmo_conf_free(c->system);
}

static bool has(const struct lmo_conf *conf, const char *name)
{
    const char *section;
    for (size_t i = 0; conf && (section = lmo_conf_section_at(conf, i)); i++) {
        const char *found = lmo_conf_section_name(section, "context");
        if (found && strcmp(found, name) == 0)
            return true;
    }
    return false;
}

const struct lmo_conf *lmo_contexts_find(const struct lmo_contexts *c, const char *name)
{
    return has(c->user, name) ? c->user : has(c->system, name) ? c->system : NULL;
}

const char *lmo_contexts_get(const struct lmo_contexts *c, const char *name, enum lmo_context_member member)
{
    const struct lmo_conf *conf = lmo_contexts_find(c, name);
    char section[128];
    snprintf(section, sizeof section, "context %s", name);
    return conf ? lmo_conf_str(conf, section, lmo_context_rows[member].key) : "";
}

const char *lmo_contexts_current(const struct lmo_cli *cli, const struct lmo_contexts *c)
{
    const char *name = cli->args.text[LMO_OPT_CONTEXT];
    if (!name || !*name)
        name = cli->env("LMO_CONTEXT");
    if ((!name || !*name) && c->user)
        name = lmo_conf_str(c->user, "lmo", "context");
    if ((!name || !*name) && c->system)
        name = lmo_conf_str(c->system, "lmo", "context");
    return name ? name : "";
}

const char *lmo_contexts_at(const struct lmo_contexts *c, size_t index)
{
    const struct lmo_conf *files[] = {c->user, c->system};
    for (size_t f = 0; f < 2; f++) {
        const char *section;
        for (size_t i = 0; files[f] && (section = lmo_conf_section_at(files[f], i)); i++) {
            const char *name = lmo_conf_section_name(section, "context");
            if (!name || (f == 1 && has(c->user, name)))
                continue;
            if (index-- == 0)
                return name;
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------ writing */

static const char *next_line(const char *line)
{
    const char *end = strchr(line, '\n');
    return end ? end + 1 : line + strlen(line);
}

static const char *skip_blanks(const char *s)
{
    return s + strspn(s, " \t");
}

/* Is this line the heading "[section]"? NULL: any heading. */
static bool is_heading(const char *line, const char *section)
{
    line = skip_blanks(line);
    if (*line != '[')
        return false;
    if (!section)
        return true;
    line = skip_blanks(line + 1);
    size_t len = strlen(section);
    return strncmp(line, section, len) == 0 && *skip_blanks(line + len) == ']';
}

static bool sets_key(const char *line, const char *key)
{
    line = skip_blanks(line);
    size_t len = strlen(key);
    return strncmp(line, key, len) == 0 && *skip_blanks(line + len) == '=';
}

/* Copies `text` into `out` with the section's keys set anew (values NULL: without them); keys NULL: without the section. */
static int edited(const char *text, const char *section, const char *const *names, const char *const *values,
                  size_t count, struct lmo_buf *out)
{
    bool inside = false, seen = false;
    int bad = 0;
    for (const char *line = text, *next; *line; line = next) {
        next = next_line(line);
        if (is_heading(line, NULL))
            inside = is_heading(line, section);
        bool drop = inside && !names;
        for (size_t i = 0; inside && i < count; i++)
            drop |= sets_key(line, names[i]);
        if (!drop)
            bad |= lmo_buf_append(out, line, (size_t)(next - line));
        if (!drop && next > line && next[-1] != '\n')
            bad |= lmo_buf_append(out, "\n", 1);
        if (!inside || seen || !is_heading(line, section))
            continue;
        seen = true;
        for (size_t i = 0; i < count; i++) {
            if (values[i])
                bad |= lmo_buf_appendf(out, "%s = %s\n", names[i], values[i]);
        }
    }
    if (!seen && names) {
        bad |= lmo_buf_appendf(out, "%s[%s]\n", out->len > 0 ? "\n" : "", section);
        for (size_t i = 0; i < count; i++) {
            if (values[i])
                bad |= lmo_buf_appendf(out, "%s = %s\n", names[i], values[i]);
        }
    }
    return bad;
}

static int rewrite(const struct lmo_contexts *c, const char *section, const char *const *names,
                   const char *const *values, size_t count, struct lmo_err *err)
{
    if (c->user_path[0] == '\0')
        return lmo_fail(err, LMO_E_INVALID,
                        "neither XDG_CONFIG_HOME nor HOME says where the configuration is to be kept");
    LMO_AUTO_FREE char *text = NULL;
    int rc = lmo_fs_read_file(c->user_path, FILE_MAX, &text, NULL, err);
    if (rc < 0 && rc != LMO_E_NOT_FOUND)
        return rc;
    struct lmo_buf out = {.max = FILE_MAX};
    rc = edited(text ? text : "", section, names, values, count, &out);
    if (rc < 0) {
        lmo_buf_done(&out);
        return lmo_fail(err, rc, "%s: the file would become too large", c->user_path);
    }
    struct lmo_conf *checked = NULL;
    rc = lmo_conf_parse(lmo_buf_text(&out), c->user_path, keys, KEY_COUNT, &checked, err);
    lmo_conf_free(checked);
    char dir[LMO_PATH_MAX];
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(c->user_path, '/') - c->user_path), c->user_path);
    if (rc == 0)
        rc = lmo_fs_mkdir_p(dir, 0700, err);
    if (rc == 0)
        rc = lmo_fs_write_atomic(c->user_path, lmo_buf_text(&out), out.len, 0600, err);
    lmo_buf_done(&out);
    return rc;
}

int lmo_contexts_edit(const struct lmo_contexts *c, const char *section, const char *const *names,
                      const char *const *values, size_t count, struct lmo_err *err)
{
    for (size_t i = 0; i < count; i++) {
        if (values[i] && strpbrk(values[i], "\r\n"))
            return lmo_fail(err, LMO_E_INVALID, "%s: must be one line", names[i]);
    }
    return rewrite(c, section, names, values, count, err);
}

int lmo_contexts_remove(const struct lmo_contexts *c, const char *name, struct lmo_err *err)
{
    char section[128];
    snprintf(section, sizeof section, "context %s", name);
    int rc = rewrite(c, section, NULL, NULL, 0, err);
    if (rc == 0 && c->user && strcmp(lmo_conf_str(c->user, "lmo", "context"), name) == 0) {
        static const char *const key[] = {"context"}, *const none[] = {NULL};
        rc = rewrite(c, "lmo", key, none, 1, err);
    }
    return rc;
}
