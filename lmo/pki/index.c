/* index.c - see index.h. */
#include "pki/index.h"
#include "base/fs.h"
#include "base/id.h"
#include "pki/files.h"

#include <inttypes.h>
#include <string.h>

#define INDEX_NAME      "index"
#define LINE_MAX_BYTES  192
#define INDEX_BYTES_MAX ((size_t)LMO_PKI_ENTRIES_MAX * LINE_MAX_BYTES)

void lmo_pki_index_release(struct lmo_pki_index *index)
{
    free(index->entries);
    *index = (struct lmo_pki_index){0};
}

int lmo_pki_index_add(struct lmo_pki_index *index, const struct lmo_pki_entry *entry, struct lmo_err *err)
{
    if (index->count >= LMO_PKI_ENTRIES_MAX) {
        return lmo_fail(err, LMO_E_LIMIT, "index: this CA has signed %d certificates; start a new one",
                        LMO_PKI_ENTRIES_MAX);
    }
    if ((index->count & (index->count - 1)) == 0) { /* full at each power of two */
        size_t room = index->count ? index->count * 2 : 1;
        struct lmo_pki_entry *more = reallocarray(index->entries, room, sizeof *more);
        if (!more)
            return lmo_fail(err, LMO_E_NO_MEMORY, "index: out of memory");
        index->entries = more;
    }
    index->entries[index->count++] = *entry;
    return 0;
}

static int parse_line(const char *line, struct lmo_pki_entry *ret)
{
    struct lmo_pki_entry e = {0};
    char role[32];
    int used = 0;
    int n = sscanf(line, "%32[0-9a-f] %31[a-z-] %63s %" SCNd64 " %" SCNd64 " %" SCNd64 "%n", e.serial, role, e.name,
                   &e.not_before_s, &e.not_after_s, &e.revoked_s, &used);
    e.role = n == 6 ? lmo_role_from_name(role) : LMO_ROLE_NONE;
    if (n != 6 || line[used] != '\0' || e.role == LMO_ROLE_NONE || !lmo_name_valid(e.name))
        return -1;
    *ret = e;
    return 0;
}

int lmo_pki_index_load(const char *dir, struct lmo_pki_index *ret, struct lmo_err *err)
{
    LMO_AUTO_FREE char *text = NULL;
    char path[LMO_PATH_MAX];
    int rc = lmo_pki_path(dir, INDEX_NAME, path, err);
    if (rc < 0)
        return rc;
    rc = lmo_fs_read_file(path, INDEX_BYTES_MAX, &text, NULL, err);
    if (rc == LMO_E_NOT_FOUND)
        return lmo_fail(err, rc, "%s: no CA here; `lmo pki init DIR` makes one", dir);
    if (rc < 0)
        return rc;

    struct lmo_pki_index index = {0};
    char *rest = text, *line = strsep(&rest, "\n");
    int used = 0;
    bool ok = line && strcmp(line, "lmo-pki-index 1") == 0;
    line = strsep(&rest, "\n");
    ok = ok && line && sscanf(line, "crl_number %" SCNu64 "%n", &index.crl_number, &used) == 1 && line[used] == '\0';
    unsigned number = 3;
    while (ok && (line = strsep(&rest, "\n")) && (rest || *line)) {
        struct lmo_pki_entry e;
        ok = parse_line(line, &e) == 0;
        number += ok;
        if (ok && (rc = lmo_pki_index_add(&index, &e, err)) < 0) {
            lmo_pki_index_release(&index);
            return rc;
        }
    }
    if (!ok) {
        lmo_pki_index_release(&index);
        return lmo_fail(err, LMO_E_CORRUPT, "%s: line %u is damaged; restore it from a backup", path, number);
    }
    *ret = index;
    return 0;
}

int lmo_pki_index_store(const char *dir, const struct lmo_pki_index *index, bool first, struct lmo_err *err)
{
    LMO_AUTO_FREE char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return lmo_fail(err, LMO_E_NO_MEMORY, "index: out of memory");
    fprintf(f, "lmo-pki-index 1\ncrl_number %" PRIu64 "\n", index->crl_number);
    for (size_t i = 0; i < index->count; i++) {
        const struct lmo_pki_entry *e = &index->entries[i];
        fprintf(f, "%s %s %s %" PRId64 " %" PRId64 " %" PRId64 "\n", e->serial, lmo_role_name(e->role), e->name,
                e->not_before_s, e->not_after_s, e->revoked_s);
    }
    if (fclose(f) != 0)
        return lmo_fail(err, LMO_E_NO_MEMORY, "index: out of memory");
    char path[LMO_PATH_MAX];
    int rc = lmo_pki_path(dir, INDEX_NAME, path, err);
    if (rc < 0)
        return rc;
    return first ? lmo_pki_write_new(path, LMO_PKI_MODE_PRIVATE, text, len, err)
                 : lmo_fs_write_atomic(path, text, len, LMO_PKI_MODE_PRIVATE, err);
}
