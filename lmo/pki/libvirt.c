/* libvirt.c - see libvirt.h. */
#include "pki/libvirt.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "pki/files.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX  (16u << 20)
#define LOCK_TIMEOUT_MS 5000

static void cleanup_secret(char **text)
{
    if (*text)
        OPENSSL_cleanse(*text, strlen(*text));
    free(*text);
}

/* Certificates and keys of one host are the same file under several names: server and client are the same host. */
static const struct {
    const char *to;
    enum { CA, CRL, CERTIFICATE, KEY } from;
} files[] = {
    {"CA/cacert.pem", CA},
    {"CA/cacrl.pem", CRL},
    {"libvirt/servercert.pem", CERTIFICATE},
    {"libvirt/clientcert.pem", CERTIFICATE},
    {"libvirt/private/serverkey.pem", KEY},
    {"libvirt/private/clientkey.pem", KEY},
    {"qemu/ca-cert.pem", CA},
    {"qemu/ca-crl.pem", CRL},
    {"qemu/server-cert.pem", CERTIFICATE},
    {"qemu/client-cert.pem", CERTIFICATE},
    {"qemu/server-key.pem", KEY},
    {"qemu/client-key.pem", KEY},
};

static int copy(const char *from, const char *tree, const char *name, mode_t mode, struct lmo_err *err)
{
    LMO_CLEANUP(cleanup_secret) char *text = NULL;
    char to[LMO_PATH_MAX];
    size_t len = 0;
    int rc = lmo_pki_path(tree, name, to, err);
    if (rc == 0)
        rc = lmo_fs_read_file(from, FILE_BYTES_MAX, &text, &len, err);
    return rc < 0 ? rc : lmo_fs_write_atomic(to, text, len, mode, err);
}

static int fill_tree(const char *ca_dir, const char *tree, const struct lmo_pki_issued *issued, struct lmo_err *err)
{
    static const char *const directories[] = {"CA", "libvirt/private", "qemu"};
    char path[LMO_PATH_MAX], ca[LMO_PATH_MAX], crl[LMO_PATH_MAX];
    int rc = lmo_pki_path(ca_dir, "ca.pem", ca, err);
    if (rc == 0)
        rc = lmo_pki_path(ca_dir, "crl.pem", crl, err);
    for (size_t i = 0; rc == 0 && i < sizeof directories / sizeof directories[0]; i++) {
        rc = lmo_pki_path(tree, directories[i], path, err);
        if (rc == 0)
            rc = lmo_fs_mkdir_p(path, LMO_PKI_MODE_DIRECTORY, err);
    }
    for (size_t i = 0; rc == 0 && i < sizeof files / sizeof files[0]; i++) {
        const char *from[] = {[CA] = ca, [CRL] = crl, [CERTIFICATE] = issued->certificate, [KEY] = issued->key};
        rc = copy(from[files[i].from], tree, files[i].to,
                  files[i].from == KEY ? LMO_PKI_MODE_PRIVATE : LMO_PKI_MODE_PUBLIC, err);
    }
    return rc;
}

/* One at a time: whoever comes second finds it whole. */
static int first_time(const char *dir, const char *ca_dir, const char *ca_pem, struct lmo_err *err)
{
    LMO_AUTO_PKI_LOCK int lock = -1;
    struct stat st;
    int rc = lmo_pki_lock(dir, LOCK_TIMEOUT_MS, &lock, err);
    return rc < 0 ? rc : lstat(ca_pem, &st) == 0 ? 0 : lmo_pki_init(ca_dir, err);
}

int lmo_pki_libvirt(const char *dir, const struct lmo_pki_request *request, struct lmo_pki_issued *ret_issued,
                    char ret_tree[LMO_PATH_MAX], struct lmo_err *err)
{
    char path[LMO_PATH_MAX], ca_dir[LMO_PATH_MAX], name[LMO_NAME_MAX + 32];
    struct lmo_pki_request r = *request;
    struct lmo_pki_issued issued;
    struct stat st;
    r.role = LMO_ROLE_WORKER;
    r.hypervisor = true;
    if (r.address_count == 0 && !r.renew) {
        return lmo_fail(
            err, LMO_E_INVALID,
            "address: at least one is needed: the other hosts' libvirt compares it with where it connects to");
    }
    int rc = lmo_pki_path(dir, "ca.pem", path, err);
    if (rc < 0)
        return rc;
    if (lstat(path, &st) < 0) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "%s: no CA here (%m); `lmo pki init %s` makes one", dir, dir);
    }
    rc = lmo_pki_path(dir, "libvirt", ca_dir, err);
    if (rc == 0)
        rc = lmo_pki_path(ca_dir, "ca.pem", path, err);
    if (rc == 0)
        rc = first_time(dir, ca_dir, path, err);
    if (rc == 0)
        rc = lmo_pki_issue(ca_dir, &r, &issued, err);
    if (rc < 0)
        return rc;
    snprintf(name, sizeof name, "issued/libvirt-%s", r.name);
    rc = lmo_pki_path(dir, name, ret_tree, err);
    if (rc == 0)
        rc = fill_tree(ca_dir, ret_tree, &issued, err);
    if (rc < 0)
        return rc;
    *ret_issued = issued;
    return 0;
}
