/* conf.h - configuration files (INI), checked whole at load time against a table of known keys.
 *
 * Every error names file, section, key and what would be right. A key or a section that is not in the table, a key
 * given twice, a value of the wrong type or out of range: all are errors, so that a misspelt limit is never
 * silently a default. Comments are whole lines that begin with '#' or ';'. Values are taken as they stand, without
 * quotes, continuation lines or escapes. (Parsed here, not by inih: that cuts names at 49 bytes silently and gives no
 * line numbers.) Getters assert that the key is in the table: asking for another is a bug of ours. */
#ifndef LMO_BASE_CONF_H
#define LMO_BASE_CONF_H

#include "base/cleanup.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum lmo_conf_type {
    LMO_CONF_STRING = 0, /* min, max: length in bytes (max 0: 1023) */
    LMO_CONF_NAME,       /* lmo_name_valid */
    LMO_CONF_UINT,       /* decimal; min, max: value (max 0: no limit) */
    LMO_CONF_BOOL,       /* yes, no, true, false, on, off, 1, 0 */
    LMO_CONF_ADDRESS,    /* "host:port", "[v6]:port"; port 1..65535 */
    LMO_CONF_PATH,       /* an absolute path */
};

struct lmo_conf_key {
    const char *section; /* "http"; "volume *" matches every section "volume <name>" */
    const char *key;
    enum lmo_conf_type type;
    bool required;             /* in its section; for a section with '*': in each one that is present */
    const char *default_value; /* NULL: "" / 0 / false; must itself be valid */
    uint64_t min, max;
    const char *help; /* one sentence: becomes part of the error text and of the documentation */
};

struct lmo_conf;

/* Reads and checks `path` (at most 256 KiB, 1024 settings). `keys` is borrowed for the life of *ret_conf. */
int lmo_conf_load(const char *path, const struct lmo_conf_key *keys, size_t key_count, struct lmo_conf **ret_conf,
                  struct lmo_err *err) LMO_MUST_CHECK;
/* The same from text in memory; `name` stands in for the path in errors. */
int lmo_conf_parse(const char *text, const char *name, const struct lmo_conf_key *keys, size_t key_count,
                   struct lmo_conf **ret_conf, struct lmo_err *err) LMO_MUST_CHECK;
/* The table for people and scripts, one line each: "section<TAB>key<TAB>required|optional<TAB>default<TAB>help". */
void lmo_conf_print_keys(const struct lmo_conf_key *keys, size_t key_count, FILE *out);
/* Takes conf (NULL is fine), returns NULL. */
struct lmo_conf *lmo_conf_free(struct lmo_conf *conf);

/* Values; the default when not set. Strings are borrowed from conf (or from the table) and never NULL. */
const char *lmo_conf_str(const struct lmo_conf *conf, const char *section, const char *key);
uint64_t lmo_conf_uint(const struct lmo_conf *conf, const char *section, const char *key);
bool lmo_conf_bool(const struct lmo_conf *conf, const char *section, const char *key);
/* True if the file itself sets it. */
bool lmo_conf_is_set(const struct lmo_conf *conf, const char *section, const char *key);

/* The sections of the file in order: NULL past the end. For "volume *": compare the part before the blank. */
const char *lmo_conf_section_at(const struct lmo_conf *conf, size_t index);
/* "volume fast1" with prefix "volume" -> "fast1"; NULL if the section is not of that kind. */
const char *lmo_conf_section_name(const char *section, const char *prefix);

/* Splits "10.0.0.1:8443", "[::1]:8443", "name:8443" -> host (without brackets) and port. Used by ADDRESS. */
int lmo_address_split(const char *address, char *ret_host, size_t host_size, uint16_t *ret_port,
                      struct lmo_err *err) LMO_MUST_CHECK;

static inline void lmo_cleanup_conf(struct lmo_conf **conf)
{
    *conf = lmo_conf_free(*conf);
}
#define LMO_AUTO_CONF LMO_CLEANUP(lmo_cleanup_conf)

#endif
