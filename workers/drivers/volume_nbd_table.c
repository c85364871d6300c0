/* volume_nbd_table.c - what the nbd driver has promised, one JSON file per volume.
 *
 * A file per volume keeps volumes independent: fencing sixteen of them writes sixteen small files in parallel, and no
 * volume waits for another's disk flush. Each change replaces the whole file (temporary file, fsync, rename, fsync of
 * the directory), so after a crash it holds the old promise or the new one, never a mixture.
 *
 * Invariants:
 *  1. `floor_epoch` only rises, and an export is folded into it only if it is fenced and its epoch is below
 *     `high_epoch`: such a name can be offered again by nobody, listed or not.
 *  2. A file that cannot be understood stops the driver from opening: to skip it would forget its fences. */
#include "workers/drivers/volume_nbd.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NBD_TABLE_VERSION 1
#define NBD_FILE_MAX      ((size_t)64 << 10)
#define NBD_FILE_PREFIX   "nbd-"
#define NBD_FILE_SUFFIX   ".json"
#define NBD_FILE_PATH_MAX (LMO_PATH_MAX + 80)
#define NBD_ID_PREFIX     "x.."
#define NBD_NODE_PREFIX   "v-"
#define NBD_NODE_HEAD     12 /* characters of a long volume name that its node's name still shows */

/* ---------------------------------------------------------------- names */

static bool all_of(const char *text, const char *extra, size_t max)
{
    size_t n = 0;
    for (; text[n]; n++) {
        char c = text[n];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if ((!alnum && !strchr(extra, c)) || n >= max)
            return false;
    }
    return n > 0;
}

bool lmo_nbd_volume_valid(const char *volume)
{
    return all_of(volume, "-_", LMO_NBD_VOLUME_MAX - 1);
}

bool lmo_nbd_host_valid(const char *host)
{
    return host[0] != '.' && all_of(host, "-_.", LMO_NAME_MAX - 1);
}

void lmo_nbd_export_name(char ret[LMO_EXPORT_MAX], const char *volume, const char *host, uint64_t epoch)
{
    snprintf(ret, LMO_EXPORT_MAX, "%.48s.%.63s.e%" PRIu64, volume, host, epoch);
}

void lmo_nbd_export_id(char ret[LMO_NBD_ID_MAX], const char *export_name)
{
    bool letter = (export_name[0] >= 'a' && export_name[0] <= 'z') || (export_name[0] >= 'A' && export_name[0] <= 'Z');
    snprintf(ret, LMO_NBD_ID_MAX, "%s%s", letter ? "" : NBD_ID_PREFIX, export_name);
}

const char *lmo_nbd_export_of_id(const char *id)
{
    return strncmp(id, NBD_ID_PREFIX, strlen(NBD_ID_PREFIX)) == 0 ? id + strlen(NBD_ID_PREFIX) : id;
}

bool lmo_nbd_export_parse(const char *name, char ret_volume[LMO_NBD_VOLUME_MAX], char ret_host[LMO_NAME_MAX],
                          uint64_t *ret_epoch)
{
    /* A volume has no dots, a host may: so the first and the last dot are the separators. */
    const char *first = strchr(name, '.');
    const char *last = strrchr(name, '.');
    if (!first || first == last || last[1] != 'e' || strlen(name) >= LMO_EXPORT_MAX)
        return false;
    size_t volume_len = (size_t)(first - name);
    size_t host_len = (size_t)(last - first - 1);
    if (volume_len >= LMO_NBD_VOLUME_MAX || host_len >= LMO_NAME_MAX)
        return false;
    char volume[LMO_NBD_VOLUME_MAX] = "";
    char host[LMO_NAME_MAX] = "";
    memcpy(volume, name, volume_len);
    memcpy(host, first + 1, host_len);
    char *end = NULL;
    errno = 0;
    uint64_t epoch = strtoull(last + 2, &end, 10);
    if (errno != 0 || !lmo_nbd_volume_valid(volume) || !lmo_nbd_host_valid(host))
        return false;
    char again[LMO_EXPORT_MAX]; /* excludes every other spelling: signs, leading zeros, trailing text */
    lmo_nbd_export_name(again, volume, host, epoch);
    if (strcmp(again, name) != 0)
        return false;
    memcpy(ret_volume, volume, sizeof(volume));
    memcpy(ret_host, host, sizeof(host));
    *ret_epoch = epoch;
    return true;
}

void lmo_nbd_node_name(char ret[LMO_NBD_NODE_MAX], const char *volume)
{
    if (strlen(volume) + strlen(NBD_NODE_PREFIX) < LMO_NBD_NODE_MAX) {
        snprintf(ret, LMO_NBD_NODE_MAX, NBD_NODE_PREFIX "%.29s", volume);
        return;
    }
    /* FNV-1a, 64 bits. A collision is not dangerous: node_add compares the node's file with the volume's. */
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const char *p = volume; *p; p++)
        hash = (hash ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
    snprintf(ret, LMO_NBD_NODE_MAX, NBD_NODE_PREFIX "%.*s-%016" PRIx64, NBD_NODE_HEAD, volume, hash);
}

/* ---------------------------------------------------------------- one volume */

struct lmo_nbd_export *lmo_nbd_find(struct lmo_nbd_volume *v, const char *host, uint64_t epoch)
{
    for (unsigned i = 0; i < v->export_count; i++)
        if (v->exports[i].epoch == epoch && strcmp(v->exports[i].host, host) == 0)
            return &v->exports[i];
    return NULL;
}

/* Folds the oldest fenced export into the floor, to make room. */
static bool fold_oldest(struct lmo_nbd_volume *v)
{
    const struct lmo_nbd_export *oldest = NULL;
    for (unsigned i = 0; i < v->export_count; i++) {
        const struct lmo_nbd_export *e = &v->exports[i];
        if (e->state == LMO_NBD_FENCED && e->epoch < v->high_epoch && (!oldest || e->epoch < oldest->epoch))
            oldest = e;
    }
    if (!oldest)
        return false;
    struct lmo_nbd_export folded = *oldest;
    if (folded.epoch > v->floor_epoch)
        v->floor_epoch = folded.epoch;
    lmo_nbd_drop(v, folded.host, folded.epoch);
    return true;
}

int lmo_nbd_put(struct lmo_nbd_volume *v, const char *host, uint64_t epoch, enum lmo_nbd_state state,
                struct lmo_err *err)
{
    struct lmo_nbd_export *e = lmo_nbd_find(v, host, epoch);
    if (!e) {
        if (v->export_count == LMO_NBD_EXPORTS_MAX && !fold_oldest(v))
            return lmo_fail(err, LMO_E_LIMIT, "volume %s: %d exports are attached already", v->name,
                            LMO_NBD_EXPORTS_MAX);
        e = &v->exports[v->export_count++];
        memset(e, 0, sizeof(*e));
        snprintf(e->host, sizeof(e->host), "%s", host);
        e->epoch = epoch;
    }
    e->state = state;
    if (state == LMO_NBD_ATTACHED && epoch > v->high_epoch)
        v->high_epoch = epoch;
    return 0;
}

void lmo_nbd_drop(struct lmo_nbd_volume *v, const char *host, uint64_t epoch)
{
    struct lmo_nbd_export *e = lmo_nbd_find(v, host, epoch);
    if (!e)
        return;
    unsigned i = (unsigned)(e - v->exports);
    memmove(e, e + 1, (v->export_count - i - 1) * sizeof(*e));
    v->export_count--;
}

bool lmo_nbd_may_offer(const struct lmo_nbd_volume *v, const char *host, uint64_t epoch)
{
    if (v->retired)
        return false;
    for (unsigned i = 0; i < v->export_count; i++)
        if (v->exports[i].epoch == epoch && strcmp(v->exports[i].host, host) == 0)
            return v->exports[i].state == LMO_NBD_ATTACHED;
    return false;
}

/* ---------------------------------------------------------------- files */

static const char *state_name(enum lmo_nbd_state state)
{
    switch (state) {
    case LMO_NBD_ATTACHED: return "attached";
    case LMO_NBD_FENCED: return "fenced";
    case LMO_NBD_DETACHED: return "detached";
    }
    return "?";
}

static bool state_from_name(const char *name, enum lmo_nbd_state *ret)
{
    for (enum lmo_nbd_state s = LMO_NBD_ATTACHED; s <= LMO_NBD_DETACHED; s++) {
        if (strcmp(name, state_name(s)) == 0) {
            *ret = s;
            return true;
        }
    }
    return false;
}

static void file_path(char ret[NBD_FILE_PATH_MAX], const char *dir, const char *volume)
{
    snprintf(ret, NBD_FILE_PATH_MAX, "%.1023s/" NBD_FILE_PREFIX "%.48s" NBD_FILE_SUFFIX, dir, volume);
}

int lmo_nbd_save(const char *dir, const struct lmo_nbd_volume *v, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *root = json_object();
    json_t *exports = json_array();
    int r = 0;
    r |= lmo_json_put_u64(root, "version", NBD_TABLE_VERSION);
    r |= lmo_json_put_str(root, "volume", v->name);
    r |= lmo_json_put_str(root, "path", v->path);
    r |= lmo_json_put_str(root, "format", v->format);
    r |= lmo_json_put_bool(root, "retired", v->retired);
    r |= lmo_json_put_u64(root, "high_epoch", v->high_epoch);
    r |= lmo_json_put_u64(root, "floor_epoch", v->floor_epoch);
    for (unsigned i = 0; i < v->export_count; i++) {
        json_t *e = json_object();
        r |= lmo_json_put_str(e, "host", v->exports[i].host);
        r |= lmo_json_put_u64(e, "epoch", v->exports[i].epoch);
        r |= lmo_json_put_str(e, "state", state_name(v->exports[i].state));
        r |= lmo_json_add(exports, e);
    }
    r |= lmo_json_put(root, "exports", exports);
    LMO_AUTO_FREE char *text = NULL;
    size_t len = 0;
    if (r != 0)
        return lmo_fail(err, LMO_E_NO_MEMORY, "volume %s: cannot write its record as JSON", v->name);
    int rc = lmo_json_dump(root, &text, &len, err);
    if (rc != 0)
        return rc;
    char path[NBD_FILE_PATH_MAX];
    file_path(path, dir, v->name);
    return lmo_fs_write_atomic(path, text, len, 0600, err);
}

int lmo_nbd_erase(const char *dir, const char *volume, struct lmo_err *err)
{
    char path[NBD_FILE_PATH_MAX];
    file_path(path, dir, volume);
    LMO_AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (unlink(path) != 0 && errno != ENOENT) || fsync(fd) != 0)
        return lmo_fail(err, LMO_E_IO, "volume %s: cannot remove its record %s: %s", volume, path, strerror(errno));
    return 0;
}

static int parse_export(const json_t *json, struct lmo_nbd_export *ret, struct lmo_err *err)
{
    char state[16] = "";
    int rc = lmo_json_str(json, "host", ret->host, sizeof(ret->host), true, err);
    if (rc == 0)
        rc = lmo_json_u64(json, "epoch", 0, INT64_MAX, &ret->epoch, true, err);
    if (rc == 0)
        rc = lmo_json_str(json, "state", state, sizeof(state), true, err);
    if (rc == 0 && (!state_from_name(state, &ret->state) || !lmo_nbd_host_valid(ret->host)))
        rc = lmo_fail(err, LMO_E_INVALID, "state '%s' or host '%s' is not known", state, ret->host);
    return rc;
}

static int parse_volume(const char *text, size_t len, struct lmo_nbd_volume *v, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *root = NULL;
    const json_t *exports = NULL;
    uint64_t version = 0;
    memset(v, 0, sizeof(*v));
    int rc = lmo_json_parse_object(text, len, NBD_FILE_MAX, &root, err);
    if (rc == 0)
        rc = lmo_json_u64(root, "version", NBD_TABLE_VERSION, NBD_TABLE_VERSION, &version, true, err);
    if (rc == 0)
        rc = lmo_json_str(root, "volume", v->name, sizeof(v->name), true, err);
    if (rc == 0)
        rc = lmo_json_str(root, "path", v->path, sizeof(v->path), true, err);
    if (rc == 0)
        rc = lmo_json_str(root, "format", v->format, sizeof(v->format), true, err);
    if (rc == 0)
        rc = lmo_json_bool(root, "retired", &v->retired, true, err);
    if (rc == 0)
        rc = lmo_json_u64(root, "high_epoch", 0, INT64_MAX, &v->high_epoch, true, err);
    if (rc == 0)
        rc = lmo_json_u64(root, "floor_epoch", 0, INT64_MAX, &v->floor_epoch, true, err);
    if (rc == 0)
        rc = lmo_json_array(root, "exports", LMO_NBD_EXPORTS_MAX, &exports, true, err);
    for (size_t i = 0; rc == 0 && i < json_array_size(exports); i++) {
        rc = parse_export(json_array_get(exports, i), &v->exports[i], err);
        v->export_count++;
    }
    return rc;
}

static int load_file(const char *dir, const char *name, struct lmo_nbd_volume *v, struct lmo_err *err)
{
    char path[NBD_FILE_PATH_MAX + 256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    LMO_AUTO_FREE char *text = NULL;
    size_t len = 0;
    int rc = lmo_fs_read_file(path, NBD_FILE_MAX, &text, &len, err);
    if (rc != 0)
        return rc;
    rc = parse_volume(text, len, v, err);
    if (rc == 0) {
        char expected[NBD_FILE_PATH_MAX];
        file_path(expected, dir, v->name);
        if (!lmo_nbd_volume_valid(v->name) || strcmp(expected, path) != 0)
            rc = lmo_fail(err, LMO_E_INVALID, "it is the record of another volume, '%s'", v->name);
    }
    if (rc == LMO_E_INVALID || rc == LMO_E_TOO_LARGE) {
        char reason[LMO_ERR_TEXT_MAX];
        snprintf(reason, sizeof(reason), "%s", err ? err->text : "");
        return lmo_fail(err, LMO_E_CORRUPT, "volume record %s: %.200s; it may hold a fence and is not skipped", path,
                        reason);
    }
    return rc;
}

int lmo_nbd_load_all(const char *dir, int (*cb)(void *arg, const struct lmo_nbd_volume *v), void *arg,
                     struct lmo_err *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return lmo_fail(err, LMO_E_IO, "cannot read the directory %s: %s", dir, strerror(errno));
    int rc = 0;
    for (const struct dirent *entry = NULL; rc == 0 && (entry = readdir(d)) != NULL;) {
        size_t len = strlen(entry->d_name);
        size_t suffix = strlen(NBD_FILE_SUFFIX);
        if (strncmp(entry->d_name, NBD_FILE_PREFIX, strlen(NBD_FILE_PREFIX)) != 0 || len <= suffix ||
            strcmp(entry->d_name + len - suffix, NBD_FILE_SUFFIX) != 0)
            continue;
        struct lmo_nbd_volume v;
        struct lmo_err own = {0};
        rc = load_file(dir, entry->d_name, &v, err ? err : &own);
        if (rc == 0)
            rc = cb(arg, &v);
    }
    closedir(d);
    return rc;
}
