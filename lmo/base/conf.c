/* conf.c - see conf.h. A bounded list of settings, each checked against the table when it is read. */
#include "base/conf.h"
#include "base/assert.h"
#include "base/fs.h"
#include "base/id.h"
#include "base/types.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX     ((size_t)256 * 1024)
#define SETTINGS_MAX 1024
#define SECTIONS_MAX 256
#define SECTION_MAX  128
#define VALUE_MAX    1023

struct setting {
    size_t section; /* index */
    const struct lmo_conf_key *key;
    char *value;
};

struct lmo_conf {
    const struct lmo_conf_key *keys;
    size_t key_count;
    char sections[SECTIONS_MAX][SECTION_MAX];
    size_t section_count;
    struct setting settings[SETTINGS_MAX];
    size_t setting_count;
};

/* Where the parser stands, for error texts. */
struct place {
    const char *file;
    unsigned line;
};

/* "volume *" in the table stands for "volume <name>". */
static bool section_matches(const char *pattern, const char *section)
{
    size_t len = strlen(pattern);
    if (len > 2 && strcmp(pattern + len - 2, " *") == 0)
        return strncmp(pattern, section, len - 1) == 0 && section[len - 1] != '\0';
    return strcmp(pattern, section) == 0;
}

static const struct lmo_conf_key *find_key(const struct lmo_conf *conf, const char *section, const char *key)
{
    for (size_t i = 0; i < conf->key_count; i++) {
        if (section_matches(conf->keys[i].section, section) && strcmp(conf->keys[i].key, key) == 0)
            return &conf->keys[i];
    }
    return NULL;
}

int lmo_address_split(const char *address, char *ret_host, size_t host_size, uint16_t *ret_port, struct lmo_err *err)
{
    const char *host = address, *end, *port;
    if (address[0] == '[') {
        host++;
        end = strchr(host, ']');
        port = end && end[1] == ':' ? end + 2 : NULL;
    } else {
        end = strrchr(address, ':');
        port = end ? end + 1 : NULL;
        if (end && memchr(address, ':', (size_t)(end - address)))
            port = NULL; /* a bare IPv6 address: ambiguous */
    }
    size_t host_len = end ? (size_t)(end - host) : 0;
    size_t digits = port ? strspn(port, "0123456789") : 0;
    unsigned long number = digits > 0 && digits <= 5 && port[digits] == '\0' ? strtoul(port, NULL, 10) : 65536;
    if (host_len == 0 || number > 65535)
        return lmo_fail(err, LMO_E_INVALID, "'%.80s' is not an address: host:port or [IPv6]:port, port up to 65535",
                        address);
    if (host_len >= host_size)
        return lmo_fail(err, LMO_E_TOO_LARGE, "the host in '%.80s' has more than %zu bytes", address, host_size - 1);
    memcpy(ret_host, host, host_len);
    ret_host[host_len] = '\0';
    *ret_port = (uint16_t)number;
    return 0;
}

static int parse_uint(const char *value, uint64_t *ret_number)
{
    size_t digits = strspn(value, "0123456789");
    if (digits == 0 || value[digits] != '\0')
        return LMO_E_INVALID;
    errno = 0;
    unsigned long long number = strtoull(value, NULL, 10);
    if (errno == ERANGE)
        return LMO_E_INVALID;
    *ret_number = number;
    return 0;
}

static int parse_bool(const char *value, bool *ret_bool)
{
    static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false", "off", "0"};
    for (size_t i = 0; i < 4; i++) {
        if (strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
            *ret_bool = strcmp(value, yes[i]) == 0;
            return 0;
        }
    }
    return LMO_E_INVALID;
}

/* Says what is wrong with `value` for `key`, without the place. */
static int check_value(const struct lmo_conf_key *key, const char *value, struct lmo_err *err)
{
    uint64_t number;
    bool truth;
    char host[256];
    uint16_t port;
    size_t len = strlen(value);

    switch (key->type) {
    case LMO_CONF_STRING: {
        uint64_t max = key->max ? key->max : VALUE_MAX;
        if (len < key->min || len > max)
            return lmo_fail(err, LMO_E_INVALID, "must have %llu to %llu bytes", (unsigned long long)key->min,
                            (unsigned long long)max);
        return 0;
    }
    case LMO_CONF_NAME:
        if (!lmo_name_valid(value))
            return lmo_fail(err, LMO_E_INVALID,
                            "'%.80s' is not a name: 1 to %d of A-Z a-z 0-9 . _ -, not starting with . or -", value,
                            LMO_NAME_MAX - 1);
        return 0;
    case LMO_CONF_UINT:
        if (parse_uint(value, &number) < 0 || number < key->min || (key->max && number > key->max))
            return lmo_fail(err, LMO_E_INVALID, "'%.40s' is not a whole number from %llu to %llu", value,
                            (unsigned long long)key->min, (unsigned long long)(key->max ? key->max : UINT64_MAX));
        return 0;
    case LMO_CONF_BOOL:
        if (parse_bool(value, &truth) < 0)
            return lmo_fail(err, LMO_E_INVALID, "'%.40s' is not yes or no", value);
        return 0;
    case LMO_CONF_ADDRESS: return lmo_address_split(value, host, sizeof host, &port, err);
    case LMO_CONF_PATH:
        if (value[0] != '/' || len >= LMO_PATH_MAX)
            return lmo_fail(err, LMO_E_INVALID, "'%.80s' is not an absolute path of at most %d bytes", value,
                            LMO_PATH_MAX - 1);
        return 0;
    }
    lmo_unreachable("type of a configuration key");
}

static char *trim(char *text)
{
    text += strspn(text, " \t");
    size_t len = strlen(text);
    while (len > 0 && strchr(" \t\r", text[len - 1]))
        text[--len] = '\0';
    return text;
}

static int add_section(struct lmo_conf *conf, const struct place *at, char *line, size_t *ret_section,
                       struct lmo_err *err)
{
    size_t len = strlen(line);
    if (line[len - 1] != ']')
        return lmo_fail(err, LMO_E_INVALID, "%s:%u: a section line ends with ']'", at->file, at->line);
    line[len - 1] = '\0';
    const char *name = trim(line + 1);
    bool known = false;
    for (size_t i = 0; i < conf->key_count && !known; i++)
        known = section_matches(conf->keys[i].section, name);
    if (!known)
        return lmo_fail(err, LMO_E_INVALID, "%s:%u: unknown section [%.80s]", at->file, at->line, name);
    const char *blank = strchr(name, ' ');
    if (blank && !lmo_name_valid(blank + 1))
        return lmo_fail(err, LMO_E_INVALID, "%s:%u: in section [%.80s]: '%.80s' is not a valid name", at->file,
                        at->line, name, blank + 1);
    if (strlen(name) >= SECTION_MAX || conf->section_count == SECTIONS_MAX)
        return lmo_fail(err, LMO_E_TOO_LARGE, "%s:%u: more than %d sections, or a name of more than %d bytes", at->file,
                        at->line, SECTIONS_MAX, SECTION_MAX - 1);
    for (size_t i = 0; i < conf->section_count; i++) {
        if (strcmp(conf->sections[i], name) == 0)
            return lmo_fail(err, LMO_E_INVALID, "%s:%u: section [%s] is there twice", at->file, at->line, name);
    }
    memcpy(conf->sections[conf->section_count], name, strlen(name) + 1);
    *ret_section = conf->section_count++;
    return 0;
}

static int add_setting(struct lmo_conf *conf, const struct place *at, size_t section, char *line, struct lmo_err *err)
{
    const char *in = conf->sections[section];
    char *equals = strchr(line, '=');
    if (!equals)
        return lmo_fail(err, LMO_E_INVALID, "%s:%u: '%.40s' is neither a section, nor key = value, nor a comment",
                        at->file, at->line, line);
    *equals = '\0';
    const char *name = trim(line), *value = trim(equals + 1);
    const struct lmo_conf_key *key = find_key(conf, in, name);
    if (!key)
        return lmo_fail(err, LMO_E_INVALID, "%s:%u: unknown key '%.60s' in [%s]", at->file, at->line, name, in);
    for (size_t i = 0; i < conf->setting_count; i++) {
        if (conf->settings[i].section == section && conf->settings[i].key == key)
            return lmo_fail(err, LMO_E_INVALID, "%s:%u: key '%s' is there twice in [%s]", at->file, at->line, name, in);
    }
    if (strstr(value, " #") || strstr(value, " ;"))
        return lmo_fail(err, LMO_E_INVALID, "%s:%u: [%s] %s: a comment must stand on a line of its own", at->file,
                        at->line, in, name);
    if (check_value(key, value, err) < 0) {
        lmo_err_prefix(err, "%s:%u: [%s] %s", at->file, at->line, in, name);
        return LMO_E_INVALID;
    }
    if (conf->setting_count == SETTINGS_MAX)
        return lmo_fail(err, LMO_E_TOO_LARGE, "%s:%u: more than %d settings", at->file, at->line, SETTINGS_MAX);
    char *copy = strdup(value);
    if (!copy)
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the configuration");
    conf->settings[conf->setting_count++] = (struct setting){.section = section, .key = key, .value = copy};
    return 0;
}

static int parse_lines(struct lmo_conf *conf, struct place *at, char *text, struct lmo_err *err)
{
    size_t section = SIZE_MAX;
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        at->line++;
        line = trim(line);
        if (line[0] == '\0' || line[0] == '#' || line[0] == ';')
            continue;
        int r;
        if (line[0] == '[')
            r = add_section(conf, at, line, &section, err);
        else if (section == SIZE_MAX)
            r = lmo_fail(err, LMO_E_INVALID, "%s:%u: a setting before the first [section]", at->file, at->line);
        else
            r = add_setting(conf, at, section, line, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static const struct setting *find_setting(const struct lmo_conf *conf, const char *section,
                                          const struct lmo_conf_key *key)
{
    for (size_t i = 0; i < conf->setting_count; i++) {
        if (conf->settings[i].key == key && strcmp(conf->sections[conf->settings[i].section], section) == 0)
            return &conf->settings[i];
    }
    return NULL;
}

/* Required keys: of a plain section always, of "kind *" in each section of that kind that the file has. */
static int check_required(const struct lmo_conf *conf, const char *file, struct lmo_err *err)
{
    for (size_t i = 0; i < conf->key_count; i++) {
        const struct lmo_conf_key *key = &conf->keys[i];
        if (!key->required)
            continue;
        bool plain = strchr(key->section, '*') == NULL;
        if (plain && !find_setting(conf, key->section, key))
            return lmo_fail(err, LMO_E_INVALID, "%s: [%s] %s is missing%s%s", file, key->section, key->key,
                            key->help ? ": " : "", key->help ? key->help : "");
        for (size_t s = 0; !plain && s < conf->section_count; s++) {
            if (section_matches(key->section, conf->sections[s]) && !find_setting(conf, conf->sections[s], key))
                return lmo_fail(err, LMO_E_INVALID, "%s: [%s] %s is missing%s%s", file, conf->sections[s], key->key,
                                key->help ? ": " : "", key->help ? key->help : "");
        }
    }
    return 0;
}

int lmo_conf_parse(const char *text, const char *name, const struct lmo_conf_key *keys, size_t key_count,
                   struct lmo_conf **ret_conf, struct lmo_err *err)
{
    for (size_t i = 0; i < key_count; i++) {
        struct lmo_err ignored;
        lmo_assert(!keys[i].default_value || check_value(&keys[i], keys[i].default_value, &ignored) == 0);
    }
    if (strlen(text) > FILE_MAX)
        return lmo_fail(err, LMO_E_TOO_LARGE, "%s: more than %zu bytes", name, FILE_MAX);
    LMO_AUTO_FREE char *copy = strdup(text);
    LMO_AUTO_CONF struct lmo_conf *conf = calloc(1, sizeof *conf);
    if (!copy || !conf)
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the configuration");
    conf->keys = keys;
    conf->key_count = key_count;
    struct place at = {.file = name};
    int r = parse_lines(conf, &at, copy, err);
    if (r == 0)
        r = check_required(conf, name, err);
    if (r < 0)
        return r;
    *ret_conf = LMO_TAKE(conf);
    return 0;
}

int lmo_conf_load(const char *path, const struct lmo_conf_key *keys, size_t key_count, struct lmo_conf **ret_conf,
                  struct lmo_err *err)
{
    LMO_AUTO_FREE char *text = NULL;
    size_t len;
    int r = lmo_fs_read_file(path, FILE_MAX, &text, &len, err);
    if (r < 0)
        return r;
    if (strlen(text) != len)
        return lmo_fail(err, LMO_E_INVALID, "%s: holds a zero byte", path);
    return lmo_conf_parse(text, path, keys, key_count, ret_conf, err);
}

void lmo_conf_print_keys(const struct lmo_conf_key *keys, size_t key_count, FILE *out)
{
    for (size_t i = 0; i < key_count; i++)
        (void)fprintf(out, "%s\t%s\t%s\t%s\t%s\n", keys[i].section, keys[i].key, keys[i].required ? "required" : "optional",
                      keys[i].default_value ? keys[i].default_value : "", keys[i].help);
}

struct lmo_conf *lmo_conf_free(struct lmo_conf *conf)
{
    for (size_t i = 0; conf && i < conf->setting_count; i++)
        free(conf->settings[i].value);
    free(conf);
    return NULL;
}

const char *lmo_conf_str(const struct lmo_conf *conf, const char *section, const char *key)
{
    const struct lmo_conf_key *known = find_key(conf, section, key);
    lmo_assert(known);
    const struct setting *setting = find_setting(conf, section, known);
    return setting ? setting->value : known->default_value ? known->default_value : "";
}

uint64_t lmo_conf_uint(const struct lmo_conf *conf, const char *section, const char *key)
{
    uint64_t number = 0;
    const char *value = lmo_conf_str(conf, section, key);
    lmo_assert(value[0] == '\0' || parse_uint(value, &number) == 0);
    return number;
}

bool lmo_conf_bool(const struct lmo_conf *conf, const char *section, const char *key)
{
    bool truth = false;
    const char *value = lmo_conf_str(conf, section, key);
    lmo_assert(value[0] == '\0' || parse_bool(value, &truth) == 0);
    return truth;
}

bool lmo_conf_is_set(const struct lmo_conf *conf, const char *section, const char *key)
{
    const struct lmo_conf_key *known = find_key(conf, section, key);
    lmo_assert(known);
    return find_setting(conf, section, known) != NULL;
}

const char *lmo_conf_section_at(const struct lmo_conf *conf, size_t index)
{
    return index < conf->section_count ? conf->sections[index] : NULL;
}

const char *lmo_conf_section_name(const char *section, const char *prefix)
{
    size_t len = strlen(prefix);
    return strncmp(section, prefix, len) == 0 && section[len] == ' ' ? section + len + 1 : NULL;
}
