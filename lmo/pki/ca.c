/* ca.c - the operations of `lmo pki` on a directory; the order of writes is what index.h demands. */
#include "pki/ca.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/id.h"
#include "pki/files.h"
#include "pki/index.h"
#include "pki/ssl_util.h"
#include "pki/x509.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>

#define LOCK_TIMEOUT_MS 5000
#define PEM_BYTES_MAX   65536
#define CRL_BYTES_MAX   (16u << 20)

static void cleanup_index(struct lmo_pki_index *index)
{
    lmo_pki_index_release(index);
}
#define AUTO_INDEX LMO_CLEANUP(cleanup_index)

/* A private key's text, wiped when it goes. */
static void cleanup_secret(char **text)
{
    if (*text)
        OPENSSL_cleanse(*text, strlen(*text));
    free(*text);
}

static int64_t now_s(void)
{
    return (int64_t)(lmo_realtime_us() / 1000000);
}

const char *lmo_pki_status_name(enum lmo_pki_status s)
{
    switch (s) {
    case LMO_PKI_VALID: return "valid";
    case LMO_PKI_EXPIRED: return "expired";
    case LMO_PKI_REVOKED: return "revoked";
    }
    return "invalid";
}

enum lmo_pki_status lmo_pki_entry_status(const struct lmo_pki_entry *e, int64_t at_s)
{
    if (e->revoked_s != 0)
        return LMO_PKI_REVOKED;
    return at_s > e->not_after_s ? LMO_PKI_EXPIRED : LMO_PKI_VALID;
}

/* ------------------------------------------------------------------ files of the CA */

enum write_how { WRITE_NEW, WRITE_REPLACE };

static int write_pem(const char *path, enum lmo_pem_kind kind, void *object, enum write_how how, struct lmo_err *err)
{
    LMO_CLEANUP(cleanup_secret) char *pem = NULL;
    size_t len = 0;
    int rc = lmo_x509_to_pem(kind, object, &pem, &len, err);
    if (rc < 0)
        return rc;
    mode_t mode = kind == LMO_PEM_PRIVATE ? LMO_PKI_MODE_PRIVATE : LMO_PKI_MODE_PUBLIC;
    return how == WRITE_NEW ? lmo_pki_write_new(path, mode, pem, len, err)
                            : lmo_fs_write_atomic(path, pem, len, mode, err);
}

static int write_pem_in(const char *dir, const char *name, enum lmo_pem_kind kind, void *object, enum write_how how,
                        struct lmo_err *err)
{
    char path[LMO_PATH_MAX];
    int rc = lmo_pki_path(dir, name, path, err);
    return rc < 0 ? rc : write_pem(path, kind, object, how, err);
}

/* Reads DIR/NAME into a memory BIO; the caller frees it. */
static int open_pem(const char *path, size_t cap, char **ret_text, BIO **ret_bio, struct lmo_err *err)
{
    size_t len = 0;
    int rc = lmo_fs_read_file(path, cap, ret_text, &len, err);
    if (rc < 0)
        return rc;
    *ret_bio = BIO_new_mem_buf(*ret_text, (int)len);
    return *ret_bio ? 0 : lmo_ssl_fail(err, LMO_E_NO_MEMORY, "%s", path);
}

static int read_certificate(const char *path, X509 **ret, struct lmo_err *err)
{
    LMO_AUTO_FREE char *text = NULL;
    BIO *bio = NULL;
    int rc = open_pem(path, PEM_BYTES_MAX, &text, &bio, err);
    if (rc < 0)
        return rc;
    X509 *c = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    if (!c)
        return lmo_ssl_fail(err, LMO_E_CORRUPT, "%s: not a certificate", path);
    *ret = c;
    return 0;
}

static int read_private_key(const char *path, EVP_PKEY **ret, struct lmo_err *err)
{
    int rc = lmo_fs_check_private(path, err);
    if (rc < 0)
        return rc;
    LMO_CLEANUP(cleanup_secret) char *text = NULL;
    BIO *bio = NULL;
    rc = open_pem(path, PEM_BYTES_MAX, &text, &bio, err);
    if (rc < 0)
        return rc;
    EVP_PKEY *k = PEM_read_bio_PrivateKey(bio, NULL, lmo_ssl_no_passphrase, NULL);
    BIO_free(bio);
    if (!k)
        return lmo_ssl_fail(err, LMO_E_CORRUPT, "%s: not a private key", path);
    *ret = k;
    return 0;
}

struct authority {
    X509 *cert;
    EVP_PKEY *key;
};
static void cleanup_authority(struct authority *a)
{
    X509_free(a->cert);
    EVP_PKEY_free(a->key);
}

static int read_authority(const char *dir, struct authority *ret, struct lmo_err *err)
{
    char path[LMO_PATH_MAX];
    LMO_CLEANUP(cleanup_authority) struct authority a = {0};
    int rc = lmo_pki_path(dir, "ca.pem", path, err);
    if (rc == 0)
        rc = read_certificate(path, &a.cert, err);
    if (rc == 0)
        rc = lmo_pki_path(dir, "ca.key", path, err);
    if (rc == 0)
        rc = read_private_key(path, &a.key, err);
    if (rc < 0)
        return rc;
    if (X509_check_private_key(a.cert, a.key) != 1) {
        return lmo_ssl_fail(err, LMO_E_CORRUPT, "%s: ca.pem and ca.key do not belong together", dir);
    }
    *ret = a;
    a = (struct authority){0};
    return 0;
}

/* Lock, index, CA: what every change begins with. The caller's variables own all three, also on failure. */
static int open_ca(const char *dir, int *ret_lock, struct lmo_pki_index *ret_index, struct authority *ret_authority,
                   struct lmo_err *err)
{
    char path[LMO_PATH_MAX];
    struct stat st;
    int rc = lmo_pki_path(dir, "ca.pem", path, err);
    if (rc < 0)
        return rc;
    if (lstat(path, &st) < 0) { /* before the lock, which would leave a file in somebody's directory */
        return lmo_fail(err, LMO_E_NOT_FOUND, "%s: no CA here (%m); `lmo pki init %s` makes one", dir, dir);
    }
    rc = lmo_pki_lock(dir, LOCK_TIMEOUT_MS, ret_lock, err);
    if (rc == 0)
        rc = lmo_pki_index_load(dir, ret_index, err);
    if (rc == 0)
        rc = read_authority(dir, ret_authority, err);
    return rc;
}

static int write_crl(const char *dir, const struct authority *a, const struct lmo_pki_index *index, enum write_how how,
                     struct lmo_err *err)
{
    LMO_AUTO_CRL X509_CRL *crl = NULL;
    int rc = lmo_x509_new_crl(a->cert, a->key, index, now_s(), &crl, err);
    return rc < 0 ? rc : write_pem_in(dir, "crl.pem", LMO_PEM_CRL, crl, how, err);
}

/* ------------------------------------------------------------------ init */

/* ca.pem comes last: a directory with it is complete. */
static int fill_directory(const char *dir, struct lmo_err *err)
{
    LMO_CLEANUP(cleanup_authority) struct authority a = {0};
    LMO_AUTO_PKEY EVP_PKEY *permit = NULL;
    AUTO_INDEX struct lmo_pki_index index = {.crl_number = 1};
    char issued[LMO_PATH_MAX];
    int rc = lmo_pki_path(dir, "issued", issued, err);
    if (rc == 0)
        rc = lmo_pki_make_directory(issued, err);
    if (rc == 0)
        rc = lmo_x509_new_key(true, &permit, err);
    if (rc == 0)
        rc = write_pem_in(dir, "permit.key", LMO_PEM_PRIVATE, permit, WRITE_NEW, err);
    if (rc == 0)
        rc = write_pem_in(dir, "permit.pub", LMO_PEM_PUBLIC, permit, WRITE_NEW, err);
    if (rc == 0)
        rc = lmo_x509_new_key(false, &a.key, err);
    if (rc == 0)
        rc = lmo_x509_new_ca(a.key, now_s(), &a.cert, err);
    if (rc == 0)
        rc = write_pem_in(dir, "ca.key", LMO_PEM_PRIVATE, a.key, WRITE_NEW, err);
    if (rc == 0)
        rc = lmo_pki_index_store(dir, &index, true, err);
    if (rc == 0)
        rc = write_crl(dir, &a, &index, WRITE_NEW, err);
    if (rc == 0)
        rc = write_pem_in(dir, "ca.pem", LMO_PEM_CERTIFICATE, a.cert, WRITE_NEW, err);
    return rc;
}

static void empty_directory(const char *dir)
{
    static const char *const names[] = {"ca.pem", "crl.pem", "index", "ca.key", "permit.pub", "permit.key"};
    char path[LMO_PATH_MAX];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (lmo_pki_path(dir, names[i], path, NULL) == 0)
            unlink(path);
    }
    if (lmo_pki_path(dir, "issued", path, NULL) == 0)
        rmdir(path);
    if (lmo_pki_path(dir, "lock", path, NULL) == 0)
        unlink(path);
}

int lmo_pki_init(const char *dir, struct lmo_err *err)
{
    char path[LMO_PATH_MAX];
    struct stat st;
    int rc = lmo_pki_path(dir, "ca.key", path, err);
    if (rc < 0)
        return rc;
    if (lstat(path, &st) == 0)
        return lmo_fail(err, LMO_E_CONFLICT, "%s: there is a CA already; name another directory", dir);
    rc = lmo_pki_make_directory(dir, err);
    if (rc < 0)
        return rc;
    LMO_AUTO_PKI_LOCK int lock = -1;
    rc = lmo_pki_lock(dir, LOCK_TIMEOUT_MS, &lock, err);
    if (rc < 0)
        return rc;
    /* Again under the lock: two calls may both have found the directory empty. */
    if (lstat(path, &st) == 0)
        return lmo_fail(err, LMO_E_CONFLICT, "%s: there is a CA already; name another directory", dir);
    rc = fill_directory(dir, err);
    if (rc < 0)
        empty_directory(dir);
    return rc;
}

/* ------------------------------------------------------------------ issue */

static int check_request(const struct lmo_pki_request *r, struct lmo_err *err)
{
    if (lmo_role_from_name(lmo_role_name(r->role)) == LMO_ROLE_NONE) {
        return lmo_fail(err, LMO_E_INVALID, "role: none that LMO knows");
    }
    if (!lmo_name_valid(r->name)) {
        return lmo_fail(err, LMO_E_INVALID, "name: must be 1 to %d of [A-Za-z0-9._-], not beginning with '.' or '-'",
                        LMO_NAME_MAX - 1);
    }
    if (r->lifetime_s < 0 || r->lifetime_s > LMO_PKI_LEAF_SECONDS_MAX) {
        return lmo_fail(err, LMO_E_INVALID, "lifetime: must be from 1 second to %lld days",
                        LMO_PKI_LEAF_SECONDS_MAX / 86400);
    }
    if (r->address_count > LMO_PKI_ADDRESSES_MAX) {
        return lmo_fail(err, LMO_E_INVALID, "address: at most %d", LMO_PKI_ADDRESSES_MAX);
    }
    for (unsigned i = 0; i < r->address_count; i++) {
        int rc = lmo_x509_check_address(r->addresses[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int issued_path(const char *dir, enum lmo_role role, const char *name, const char *suffix,
                       char ret[LMO_PATH_MAX], struct lmo_err *err)
{
    char file[LMO_NAME_MAX + 64];
    snprintf(file, sizeof file, "issued/%s-%s.%s", lmo_role_name(role), name, suffix);
    return lmo_pki_path(dir, file, ret, err);
}

/* Fills in paths; refuses to overwrite; for a renewal takes over the addresses. */
static int prepare_files(const char *dir, struct lmo_pki_request *r, struct lmo_pki_issued *out, struct lmo_err *err)
{
    int rc = issued_path(dir, r->role, r->name, "pem", out->certificate, err);
    if (rc == 0)
        rc = issued_path(dir, r->role, r->name, "key", out->key, err);
    if (rc < 0)
        return rc;
    struct stat st;
    bool there = lstat(out->certificate, &st) == 0 || lstat(out->key, &st) == 0;
    if (there && !r->renew) {
        return lmo_fail(err, LMO_E_CONFLICT, "%s/%s was issued already; --renew makes a new key and certificate",
                        lmo_role_name(r->role), r->name);
    }
    if (!r->renew || r->address_count > 0)
        return 0;
    LMO_AUTO_X509 X509 *old = NULL;
    rc = read_certificate(out->certificate, &old, err);
    if (rc == LMO_E_NOT_FOUND)
        return lmo_fail(err, rc, "%s/%s was never issued", lmo_role_name(r->role), r->name);
    return rc < 0 ? rc : lmo_x509_copy_addresses(old, r, err);
}

static int new_entry(const struct authority *a, const struct lmo_pki_index *index, const struct lmo_pki_request *r,
                     struct lmo_pki_entry *ret, struct lmo_err *err)
{
    int64_t ca_end_s = 0, now = now_s();
    int rc = lmo_x509_time(X509_get0_notAfter(a->cert), &ca_end_s, err);
    if (rc < 0)
        return rc;
    struct lmo_pki_entry e = {.role = r->role,
                              .not_before_s = now - LMO_PKI_BACKDATE_SECONDS,
                              .not_after_s = now + (r->lifetime_s ? r->lifetime_s : LMO_PKI_LEAF_SECONDS)};
    memcpy(e.name, r->name, sizeof e.name);
    if (e.not_after_s > ca_end_s) {
        return lmo_fail(err, LMO_E_REFUSED,
                        "the CA itself ends before that: ask for a shorter life, or start a new CA");
    }
    for (bool taken = true; taken;) {
        lmo_x509_new_serial(e.serial);
        taken = false;
        for (size_t i = 0; i < index->count && !taken; i++)
            taken = strcmp(index->entries[i].serial, e.serial) == 0;
    }
    *ret = e;
    return 0;
}

int lmo_pki_issue(const char *dir, const struct lmo_pki_request *request, struct lmo_pki_issued *ret_issued,
                  struct lmo_err *err)
{
    struct lmo_pki_request r = *request;
    int rc = check_request(&r, err);
    if (rc < 0)
        return rc;
    AUTO_INDEX struct lmo_pki_index index = {0};
    LMO_CLEANUP(cleanup_authority) struct authority a = {0};
    LMO_AUTO_PKEY EVP_PKEY *key = NULL;
    LMO_AUTO_X509 X509 *cert = NULL;
    struct lmo_pki_issued out = {0};
    LMO_AUTO_PKI_LOCK int lock = -1;
    rc = open_ca(dir, &lock, &index, &a, err);
    if (rc == 0)
        rc = prepare_files(dir, &r, &out, err);
    if (rc == 0)
        rc = new_entry(&a, &index, &r, &out.entry, err);
    if (rc == 0)
        rc = lmo_x509_new_key(false, &key, err);
    if (rc == 0)
        rc = lmo_x509_new_leaf(a.cert, a.key, key, &out.entry, &r, &cert, err);
    /* Into the index before it can leave this process (index.h, invariant 1). */
    if (rc == 0)
        rc = lmo_pki_index_add(&index, &out.entry, err);
    if (rc == 0)
        rc = lmo_pki_index_store(dir, &index, false, err);
    if (rc == 0)
        rc = write_pem(out.key, LMO_PEM_PRIVATE, key, r.renew ? WRITE_REPLACE : WRITE_NEW, err);
    if (rc < 0)
        return rc;
    rc = write_pem(out.certificate, LMO_PEM_CERTIFICATE, cert, r.renew ? WRITE_REPLACE : WRITE_NEW, err);
    if (rc < 0) {
        if (!r.renew)
            unlink(out.key);
        return rc;
    }
    *ret_issued = out;
    return 0;
}

/* ------------------------------------------------------------------ list, revoke */

static int crl_expiry(const char *dir, int64_t *ret_s, struct lmo_err *err)
{
    char path[LMO_PATH_MAX];
    LMO_AUTO_FREE char *text = NULL;
    BIO *bio = NULL;
    int rc = lmo_pki_path(dir, "crl.pem", path, err);
    if (rc == 0)
        rc = open_pem(path, CRL_BYTES_MAX, &text, &bio, err);
    if (rc < 0)
        return rc;
    LMO_AUTO_CRL X509_CRL *crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL);
    BIO_free(bio);
    if (!crl)
        return lmo_ssl_fail(err, LMO_E_CORRUPT, "%s: not a revocation list", path);
    return lmo_x509_time(X509_CRL_get0_nextUpdate(crl), ret_s, err);
}

int lmo_pki_list(const char *dir, int (*cb)(void *arg, const struct lmo_pki_entry *e), void *arg,
                 int64_t *ret_crl_expires_s, struct lmo_err *err)
{
    /* No lock: the index is replaced, never changed in place. */
    AUTO_INDEX struct lmo_pki_index index = {0};
    int64_t expires_s = 0;
    int rc = lmo_pki_index_load(dir, &index, err);
    if (rc == 0 && ret_crl_expires_s)
        rc = crl_expiry(dir, &expires_s, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < index.count && cb(arg, &index.entries[i]) == 0; i++) {
    }
    if (ret_crl_expires_s)
        *ret_crl_expires_s = expires_s;
    return 0;
}

static bool matches(const struct lmo_pki_entry *e, const char *what)
{
    const char *slash = strchr(what, '/');
    if (!slash)
        return strcmp(e->serial, what) == 0;
    const char *role = lmo_role_name(e->role);
    size_t role_len = (size_t)(slash - what);
    return strlen(role) == role_len && strncmp(role, what, role_len) == 0 && strcmp(e->name, slash + 1) == 0;
}

/* `what` NULL: nothing is revoked, only a new list is made. */
static int revoke_and_list(const char *dir, const char *what, unsigned *ret_revoked, struct lmo_err *err)
{
    AUTO_INDEX struct lmo_pki_index index = {0};
    LMO_CLEANUP(cleanup_authority) struct authority a = {0};
    LMO_AUTO_PKI_LOCK int lock = -1;
    int rc = open_ca(dir, &lock, &index, &a, err);
    if (rc < 0)
        return rc;
    unsigned matched = 0, revoked = 0;
    int64_t now = now_s();
    for (size_t i = 0; what && i < index.count; i++) {
        struct lmo_pki_entry *e = &index.entries[i];
        if (!matches(e, what))
            continue;
        matched++;
        if (lmo_pki_entry_status(e, now) != LMO_PKI_VALID)
            continue;
        e->revoked_s = now;
        revoked++;
    }
    if (what && matched == 0) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "%.80s: no certificate of that serial or ROLE/NAME; see `lmo pki list`",
                        what);
    }
    index.crl_number++;
    rc = lmo_pki_index_store(dir, &index, false, err); /* before the list: index.h, invariant 2 */
    if (rc == 0)
        rc = write_crl(dir, &a, &index, WRITE_REPLACE, err);
    if (rc < 0)
        return rc;
    *ret_revoked = revoked;
    return 0;
}

int lmo_pki_revoke(const char *dir, const char *what, unsigned *ret_revoked, struct lmo_err *err)
{
    return revoke_and_list(dir, what, ret_revoked, err);
}

int lmo_pki_refresh_crl(const char *dir, struct lmo_err *err)
{
    unsigned none = 0;
    return revoke_and_list(dir, NULL, &none, err);
}
