/* test_pki.c - the CA's directory, judged from outside with OpenSSL's own verification; and permits. */
#include "base/clock.h"
#include "base/fs.h"
#include "pki/ca.h"
#include "pki/files.h"
#include "pki/permit.h"

#include <check.h>
#include <errno.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

Suite *pki_suite(void);

static char parent[64], dir[96];

static void make_parent(void)
{
    snprintf(parent, sizeof parent, "/tmp/lmo-pki-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(parent));
    snprintf(dir, sizeof dir, "%s/ca", parent);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void remove_parent(void)
{
    nftw(parent, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void init(void)
{
    struct lmo_err err = {0};
    ck_assert_msg(lmo_pki_init(dir, &err) == 0, "%s", err.text);
}

static const char *path_of(const char *name)
{
    static char path[4][256];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static unsigned mode_of(const char *path)
{
    struct stat st;
    ck_assert_msg(lstat(path, &st) == 0, "%s", path);
    return st.st_mode & 07777;
}

static int issue(enum lmo_role role, const char *name, const char *address, struct lmo_pki_issued *ret)
{
    struct lmo_pki_request r = {.role = role};
    struct lmo_pki_issued ignored;
    snprintf(r.name, sizeof r.name, "%s", name);
    if (address)
        snprintf(r.addresses[r.address_count++], LMO_PKI_DNS_MAX, "%s", address);
    return lmo_pki_issue(dir, &r, ret ? ret : &ignored, NULL);
}

static X509 *load_certificate(const char *path)
{
    FILE *f = fopen(path, "re");
    ck_assert_msg(f != NULL, "%s", path);
    X509 *c = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    ck_assert_ptr_nonnull(c);
    return c;
}

/* X509_V_OK or why OpenSSL refuses it, for `purpose`, with the CRL, under its strict rules. */
static int judge(const char *certificate, int purpose)
{
    X509 *ca = load_certificate(path_of("ca.pem")), *c = load_certificate(certificate);
    FILE *f = fopen(path_of("crl.pem"), "re");
    X509_CRL *crl = PEM_read_X509_CRL(f, NULL, NULL, NULL);
    fclose(f);
    X509_STORE *store = X509_STORE_new();
    ck_assert(X509_STORE_add_cert(store, ca) && X509_STORE_add_crl(store, crl));
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_X509_STRICT);
    X509_STORE_set_purpose(store, purpose);
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    ck_assert(X509_STORE_CTX_init(ctx, store, c, NULL));
    X509_verify_cert(ctx);
    int result = X509_STORE_CTX_get_error(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    X509_CRL_free(crl);
    X509_free(ca);
    X509_free(c);
    return result;
}

static uint64_t crl_number(void)
{
    FILE *f = fopen(path_of("crl.pem"), "re");
    X509_CRL *crl = PEM_read_X509_CRL(f, NULL, NULL, NULL);
    fclose(f);
    ASN1_INTEGER *n = X509_CRL_get_ext_d2i(crl, NID_crl_number, NULL, NULL);
    uint64_t value = 0;
    ck_assert(ASN1_INTEGER_get_uint64(&value, n));
    ASN1_INTEGER_free(n);
    X509_CRL_free(crl);
    return value;
}

/* ------------------------------------------------------------------ directory */

START_TEST(init__makes_private_keys_private_whatever_the_umask)
{
    static const char *const keys[] = {"ca.key", "permit.key", "index", "lock"};
    static const char *const public[] = {"ca.pem", "crl.pem", "permit.pub"};
    static const mode_t masks[] = {0, 0777};
    umask(masks[_i]);
    init();
    ck_assert_int_eq(issue(LMO_ROLE_WORKER, "hv1", "10.0.0.1", NULL), 0);
    umask(022);
    ck_assert_uint_eq(mode_of(dir), 0700);
    ck_assert_uint_eq(mode_of(path_of("issued")), 0700);
    for (size_t i = 0; i < 3; i++)
        ck_assert_uint_eq(mode_of(path_of(public[i])), 0644);
    for (size_t i = 0; i < 3; i++)
        ck_assert_uint_eq(mode_of(path_of(keys[i])), 0600);
    ck_assert_uint_eq(mode_of(path_of(keys[3])) & 077, 0);
    ck_assert_uint_eq(mode_of(path_of("issued/worker-hv1.key")), 0600);
    ck_assert_uint_eq(mode_of(path_of("issued/worker-hv1.pem")), 0644);
}
END_TEST

START_TEST(init__refuses_where_a_CA_is)
{
    init();
    char *before = NULL, *after = NULL;
    ck_assert_int_eq(lmo_fs_read_file(path_of("ca.key"), 4096, &before, NULL, NULL), 0);
    ck_assert_int_eq(lmo_pki_init(dir, NULL), LMO_E_CONFLICT);
    ck_assert_int_eq(lmo_fs_read_file(path_of("ca.key"), 4096, &after, NULL, NULL), 0);
    ck_assert_str_eq(before, after);
    free(before);
    free(after);
}
END_TEST

START_TEST(init__leaves_somebodys_directory_alone)
{
    ck_assert_int_eq(mkdir(dir, 0755), 0);
    ck_assert_int_eq(chmod(dir, 0755), 0);
    ck_assert_int_eq(lmo_fs_write_atomic(path_of("letter"), "x", 1, 0644, NULL), 0);
    ck_assert_int_eq(lmo_pki_init(dir, NULL), LMO_E_REFUSED);
    ck_assert_uint_eq(mode_of(dir), 0755);
    ck_assert_int_ne(access(path_of("lock"), F_OK), 0);
}
END_TEST

START_TEST(init_that_fails__leaves_nothing_behind)
{
    ck_assert_int_eq(mkdir(dir, 0700), 0);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, none;
    getrlimit(RLIMIT_FSIZE, &old);
    none = old;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_FSIZE, &none);
    int rc = lmo_pki_init(dir, NULL);
    setrlimit(RLIMIT_FSIZE, &old);
    ck_assert_int_lt(rc, 0);
    ck_assert_int_eq(rmdir(dir), 0); /* so it was empty */
}
END_TEST

START_TEST(issue_where_no_CA_is__says_so_and_leaves_no_file)
{
    struct lmo_err err = {0};
    struct lmo_pki_request r = {.role = LMO_ROLE_VIEWER, .name = "v"};
    struct lmo_pki_issued out;
    ck_assert_int_eq(mkdir(dir, 0700), 0);
    ck_assert_int_eq(lmo_pki_issue(dir, &r, &out, &err), LMO_E_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.text, "lmo pki init"));
    ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

/* ------------------------------------------------------------------ certificates */

START_TEST(issued_certificates__are_what_strict_verifiers_accept)
{
    init();
    static const struct {
        enum lmo_role role;
        bool server;
    } roles[] = {
        {LMO_ROLE_COORDINATOR, true},    {LMO_ROLE_WORKER, true},  {LMO_ROLE_OPERATOR, false},
        {LMO_ROLE_CONTROL_PLANE, false}, {LMO_ROLE_VIEWER, false}, {LMO_ROLE_FAULT_INJECTOR, false},
    };
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        struct lmo_pki_issued out;
        ck_assert_int_eq(issue(roles[i].role, "n-1.x_y", NULL, &out), 0);
        ck_assert_int_eq(judge(out.certificate, X509_PURPOSE_SSL_CLIENT), X509_V_OK);
        ck_assert_int_eq(judge(out.certificate, X509_PURPOSE_SSL_SERVER),
                         roles[i].server ? X509_V_OK : X509_V_ERR_INVALID_PURPOSE);
    }
}
END_TEST

START_TEST(identity_and_addresses__are_in_the_subject_alternative_names)
{
    init();
    struct lmo_pki_request r = {.role = LMO_ROLE_WORKER, .name = "hv1", .address_count = 3};
    strcpy(r.addresses[0], "10.0.0.1");
    strcpy(r.addresses[1], "fd00::1");
    strcpy(r.addresses[2], "hv1.example");
    struct lmo_pki_issued out;
    ck_assert_int_eq(lmo_pki_issue(dir, &r, &out, NULL), 0);
    X509 *c = load_certificate(out.certificate);
    GENERAL_NAMES *names = X509_get_ext_d2i(c, NID_subject_alt_name, NULL, NULL);
    unsigned uris = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
        if (g->type != GEN_URI)
            continue;
        uris++;
        struct lmo_identity id;
        ck_assert_int_eq(lmo_identity_parse_urn((const char *)ASN1_STRING_get0_data(g->d.ia5), &id, NULL), 0);
        ck_assert_int_eq(id.role, LMO_ROLE_WORKER);
        ck_assert_str_eq(id.name, "hv1");
    }
    ck_assert_uint_eq(uris, 1);
    ck_assert_int_eq(X509_check_ip_asc(c, "10.0.0.1", 0), 1);
    ck_assert_int_eq(X509_check_ip_asc(c, "fd00::1", 0), 1);
    ck_assert_int_eq(X509_check_host(c, "hv1.example", 0, 0, NULL), 1);
    ck_assert_int_ne(X509_check_host(c, "hv1", 0, 0, NULL), 1);
    GENERAL_NAMES_free(names);
    X509_free(c);
}
END_TEST

START_TEST(name_that_looks_like_a_host__is_not_taken_for_one)
{
    init();
    struct lmo_pki_issued out;
    ck_assert_int_eq(issue(LMO_ROLE_WORKER, "coordinator.example", NULL, &out), 0);
    X509 *c = load_certificate(out.certificate);
    ck_assert_int_ne(X509_check_host(c, "coordinator.example", 0, 0, NULL), 1);
    X509_free(c);
}
END_TEST

START_TEST(default_life_is_90_days_and_a_short_one_is_kept)
{
    init();
    struct lmo_pki_request r = {.role = LMO_ROLE_WORKER, .name = "short", .lifetime_s = 2};
    struct lmo_pki_issued out;
    int64_t now_s = (int64_t)(lmo_realtime_us() / 1000000);
    ck_assert_int_eq(lmo_pki_issue(dir, &r, &out, NULL), 0);
    ck_assert_int_le(out.entry.not_after_s - now_s, 3);
    ck_assert_int_eq(issue(LMO_ROLE_WORKER, "long", NULL, &out), 0);
    ck_assert_int_ge(out.entry.not_after_s - now_s, 90 * 86400);
    ck_assert_int_le(out.entry.not_after_s - now_s, 90 * 86400 + 5);
}
END_TEST

START_TEST(issue__refuses_names_addresses_and_lives_that_cannot_be_right)
{
    init();
    static const char *const names[] = {"", ".", "..", "-x", "a/b", "a b", "a:b", "a\nb", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        ck_assert_msg(issue(LMO_ROLE_WORKER, names[i], NULL, NULL) == LMO_E_INVALID, "%s", names[i]);
    }
    static const char *const addresses[] = {"",          "10.0.0", "10.0.0.256",
                                            "*.example", "a b",    "URI:urn:lmo:coordinator:x",
                                            "a..b",      "-a",     "a,DNS:b",
                                            "fd00::1::2"};
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        ck_assert_msg(issue(LMO_ROLE_WORKER, "hv", addresses[i], NULL) == LMO_E_INVALID, "%s", addresses[i]);
    }
    ck_assert_int_eq(issue(LMO_ROLE_NONE, "hv", NULL, NULL), LMO_E_INVALID);
    ck_assert_int_eq(issue((enum lmo_role)99, "hv", NULL, NULL), LMO_E_INVALID);
    struct lmo_pki_request r = {.role = LMO_ROLE_WORKER, .name = "hv", .lifetime_s = LMO_PKI_LEAF_SECONDS_MAX + 1};
    struct lmo_pki_issued out;
    ck_assert_int_eq(lmo_pki_issue(dir, &r, &out, NULL), LMO_E_INVALID);
}
END_TEST

START_TEST(issue_again__is_refused_unless_it_is_a_renewal_which_keeps_the_addresses)
{
    init();
    struct lmo_pki_issued first, second;
    ck_assert_int_eq(issue(LMO_ROLE_WORKER, "hv1", "10.0.0.1", &first), 0);
    ck_assert_int_eq(issue(LMO_ROLE_WORKER, "hv1", "10.0.0.1", &second), LMO_E_CONFLICT);
    struct lmo_pki_request r = {.role = LMO_ROLE_WORKER, .name = "hv1", .renew = true};
    ck_assert_int_eq(lmo_pki_issue(dir, &r, &second, NULL), 0);
    ck_assert_str_ne(first.entry.serial, second.entry.serial);
    X509 *c = load_certificate(second.certificate);
    ck_assert_int_eq(X509_check_ip_asc(c, "10.0.0.1", 0), 1);
    FILE *f = fopen(second.key, "re");
    EVP_PKEY *key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    fclose(f);
    ck_assert_int_eq(X509_check_private_key(c, key), 1);
    EVP_PKEY_free(key);
    X509_free(c);
    ck_assert_uint_eq(mode_of(second.key), 0600);
    strcpy(r.name, "never");
    ck_assert_int_eq(lmo_pki_issue(dir, &r, &second, NULL), LMO_E_NOT_FOUND);
}
END_TEST

static int count_entry(void *arg, const struct lmo_pki_entry *e)
{
    ck_assert_uint_eq(strlen(e->serial), 32);
    ck_assert(e->serial[0] >= '4' && e->serial[0] <= '7');
    (*(unsigned *)arg)++;
    return 0;
}

START_TEST(issues_at_the_same_time__all_end_up_in_the_index)
{
    init();
    enum { CHILDREN = 8 };
    pid_t pid[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        pid[i] = fork();
        if (pid[i] == 0) {
            char name[16];
            snprintf(name, sizeof name, "hv%d", i);
            _exit(issue(LMO_ROLE_WORKER, name, NULL, NULL) == 0 ? 0 : 1);
        }
    }
    for (int i = 0; i < CHILDREN; i++) {
        int status = -1;
        ck_assert_int_eq(waitpid(pid[i], &status, 0), pid[i]);
        ck_assert_int_eq(status, 0);
    }
    unsigned count = 0;
    ck_assert_int_eq(lmo_pki_list(dir, count_entry, &count, NULL, NULL), 0);
    ck_assert_uint_eq(count, CHILDREN);
}
END_TEST

START_TEST(lock_that_is_held__is_waited_for_and_then_given_up)
{
    init();
    int ready[2], release[2], lock = -1;
    char byte = 0;
    ck_assert(pipe(ready) == 0 && pipe(release) == 0);
    pid_t child = fork();
    if (child == 0) {
        int held = -1;
        if (lmo_pki_lock(dir, 1000, &held, NULL) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        if (read(release[0], &byte, 1) != 1)
            _exit(1);
        usleep(20000); /* until the parent is surely waiting; if it is not, the test only proves less */
        lmo_pki_unlock(held);
        _exit(0);
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    uint64_t began = lmo_now_ms();
    ck_assert_int_eq(lmo_pki_lock(dir, 60, &lock, NULL), LMO_E_BUSY);
    ck_assert_uint_ge(lmo_now_ms() - began, 55);
    ck_assert_int_eq(write(release[1], "x", 1), 1);
    began = lmo_now_ms();
    ck_assert_int_eq(lmo_pki_lock(dir, 20000, &lock, NULL), 0);
    ck_assert_uint_lt(lmo_now_ms() - began, 10000); /* woken, not timed out */
    lmo_pki_unlock(lock);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
}
END_TEST

/* ------------------------------------------------------------------ revocation */

START_TEST(revoked_certificate__is_refused_by_the_new_list_and_only_that_one)
{
    init();
    struct lmo_pki_issued a, b;
    unsigned n = 9;
    ck_assert_int_eq(issue(LMO_ROLE_WORKER, "hv1", NULL, &a), 0);
    ck_assert_int_eq(issue(LMO_ROLE_WORKER, "hv2", NULL, &b), 0);
    uint64_t before = crl_number();
    ck_assert_int_eq(lmo_pki_revoke(dir, "worker/hv1", &n, NULL), 0);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(crl_number(), before + 1);
    ck_assert_int_eq(judge(a.certificate, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_CERT_REVOKED);
    ck_assert_int_eq(judge(b.certificate, X509_PURPOSE_SSL_CLIENT), X509_V_OK);
    ck_assert_int_eq(lmo_pki_revoke(dir, b.entry.serial, &n, NULL), 0);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(judge(b.certificate, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_CERT_REVOKED);
    ck_assert_int_eq(lmo_pki_revoke(dir, "worker/hv1", &n, NULL), 0);
    ck_assert_uint_eq(n, 0);
    ck_assert_int_eq(lmo_pki_revoke(dir, "worker/hv9", &n, NULL), LMO_E_NOT_FOUND);
    ck_assert_int_eq(lmo_pki_revoke(dir, "operator/hv1", &n, NULL), LMO_E_NOT_FOUND);
    ck_assert_int_eq(lmo_pki_revoke(dir, "", &n, NULL), LMO_E_NOT_FOUND);
}
END_TEST

START_TEST(revocation_by_name__takes_every_certificate_of_that_name)
{
    init();
    struct lmo_pki_issued old, new;
    ck_assert_int_eq(issue(LMO_ROLE_OPERATOR, "alice", NULL, &old), 0);
    ck_assert_int_eq(link(old.certificate, path_of("old.pem")), 0);
    struct lmo_pki_request r = {.role = LMO_ROLE_OPERATOR, .name = "alice", .renew = true};
    ck_assert_int_eq(lmo_pki_issue(dir, &r, &new, NULL), 0);
    unsigned n = 0;
    ck_assert_int_eq(lmo_pki_revoke(dir, "operator/alice", &n, NULL), 0);
    ck_assert_uint_eq(n, 2);
    ck_assert_int_eq(judge(path_of("old.pem"), X509_PURPOSE_SSL_CLIENT), X509_V_ERR_CERT_REVOKED);
    ck_assert_int_eq(judge(new.certificate, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_CERT_REVOKED);
}
END_TEST

START_TEST(crash_between_index_and_list__loses_no_revocation)
{
    init();
    struct lmo_pki_issued a, b;
    unsigned n = 0;
    ck_assert_int_eq(issue(LMO_ROLE_WORKER, "hv1", NULL, &a), 0);
    ck_assert_int_eq(issue(LMO_ROLE_WORKER, "hv2", NULL, &b), 0);
    char *list = NULL;
    size_t len = 0;
    ck_assert_int_eq(lmo_fs_read_file(path_of("crl.pem"), 65536, &list, &len, NULL), 0);
    ck_assert_int_eq(lmo_pki_revoke(dir, "worker/hv1", &n, NULL), 0);
    ck_assert_int_eq(lmo_fs_write_atomic(path_of("crl.pem"), list, len, 0644, NULL), 0); /* as if never written */
    free(list);
    ck_assert_int_eq(lmo_pki_revoke(dir, "worker/hv2", &n, NULL), 0);
    ck_assert_int_eq(judge(a.certificate, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_CERT_REVOKED);
    ck_assert_int_eq(judge(b.certificate, X509_PURPOSE_SSL_CLIENT), X509_V_ERR_CERT_REVOKED);
}
END_TEST

START_TEST(status__is_valid_then_expired_and_revoked_before_all)
{
    struct lmo_pki_entry e = {.not_before_s = 1000, .not_after_s = 2000};
    ck_assert_int_eq(lmo_pki_entry_status(&e, 2000), LMO_PKI_VALID);
    ck_assert_int_eq(lmo_pki_entry_status(&e, 2001), LMO_PKI_EXPIRED);
    e.revoked_s = 1500;
    ck_assert_int_eq(lmo_pki_entry_status(&e, 2001), LMO_PKI_REVOKED);
}
END_TEST

START_TEST(damaged_index__stops_everything_and_names_the_line)
{
    init();
    static const char text[] = "lmo-pki-index 1\ncrl_number 1\nzzz worker hv1 1 2 0\n";
    ck_assert_int_eq(lmo_fs_write_atomic(path_of("index"), text, sizeof text - 1, 0600, NULL), 0);
    struct lmo_err err = {0};
    unsigned n = 0;
    ck_assert_int_eq(lmo_pki_revoke(dir, "worker/hv1", &n, &err), LMO_E_CORRUPT);
    ck_assert_ptr_nonnull(strstr(err.text, "line 3"));
    ck_assert_int_eq(issue(LMO_ROLE_WORKER, "hv1", NULL, NULL), LMO_E_CORRUPT);
}
END_TEST

/* ------------------------------------------------------------------ permits */

static struct lmo_permit_key *key;
static struct lmo_permit_public *public;

static void init_keys(void)
{
    make_parent();
    init();
    ck_assert_int_eq(lmo_permit_key_load(path_of("permit.key"), &key, NULL), 0);
    ck_assert_int_eq(lmo_permit_public_load(path_of("permit.pub"), &public, NULL), 0);
}

static void drop_keys(void)
{
    key = lmo_permit_key_free(key);
    public = lmo_permit_public_free(public);
    remove_parent();
}

static struct lmo_permit a_permit(void)
{
    return (struct lmo_permit){
        .migration = "01JABCDEFGHJKMNPQRSTVWXYZ0",
        .vm_uuid = "6f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
        .epoch = 7,
        .source = "hv1",
        .destination = "hv2",
        .final_state = LMO_PERMIT_FINAL_RUNNING,
        .issued_ms = 1000000,
        .expires_ms = 1600000,
        .volume_count = 1,
        .volumes = {{.volume = "v1",
                     .service = "10.0.0.10:10809",
                     .worker = "ctl",
                     .export_source = "v1.hv1.e6",
                     .export_destination = "v1.hv2.e7"}},
    };
}

/* An envelope around any payload, signed with our key. */
static void sign_raw(const char *payload, char *ret_text)
{
    FILE *f = fopen(path_of("permit.key"), "re");
    EVP_PKEY *pkey = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    fclose(f);
    unsigned char signature[64], payload64[20000], signature64[100];
    size_t len = sizeof signature;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    ck_assert_int_eq(EVP_DigestSignInit(md, NULL, NULL, NULL, pkey), 1);
    ck_assert_int_eq(EVP_DigestSign(md, signature, &len, (const unsigned char *)payload, strlen(payload)), 1);
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(pkey);
    EVP_EncodeBlock(payload64, (const unsigned char *)payload, (int)strlen(payload));
    EVP_EncodeBlock(signature64, signature, (int)len);
    snprintf(ret_text, LMO_PERMIT_TEXT_MAX, "{ \"signature\": \"%s\", \"payload\": \"%s\" }", signature64, payload64);
}

START_TEST(permit__comes_back_as_it_was_signed)
{
    struct lmo_permit p = a_permit(), q;
    char text[LMO_PERMIT_TEXT_MAX];
    for (unsigned f = LMO_PERMIT_FINAL_RUNNING; f <= LMO_PERMIT_FINAL_PAUSED; f++) {
        p.final_state = (enum lmo_permit_final)f;
        ck_assert_int_eq(lmo_permit_sign(key, &p, text, sizeof text, NULL), 0);
        memset(&q, 0x55, sizeof q);
        ck_assert_int_eq(lmo_permit_verify(public, text, &q, NULL), 0);
        ck_assert(lmo_permit_same(&p, &q));
        ck_assert_uint_eq(q.version, LMO_PERMIT_VERSION);
        ck_assert_uint_eq(q.issued_ms, p.issued_ms);
        ck_assert_uint_eq(q.expires_ms, p.expires_ms);
        ck_assert_int_eq(q.final_state, p.final_state);
    }
    p.volume_count = 0; /* a guest without volumes rests on the freeze alone */
    ck_assert_int_eq(lmo_permit_sign(key, &p, text, sizeof text, NULL), 0);
    ck_assert_int_eq(lmo_permit_verify(public, text, &q, NULL), 0);
}
END_TEST

START_TEST(largest_permit__fits)
{
    struct lmo_permit p = a_permit(), q;
    char text[LMO_PERMIT_TEXT_MAX];
    memset(p.source, 's', sizeof p.source - 1);
    memset(p.destination, 'd', sizeof p.destination - 1);
    p.epoch = UINT64_MAX;
    p.volume_count = LMO_VOLUMES_MAX;
    for (unsigned i = 0; i < LMO_VOLUMES_MAX; i++) {
        struct lmo_permit_volume *v = &p.volumes[i];
        memset(v->volume, 'a' + (int)i, sizeof v->volume - 1);
        memset(v->service, '1', sizeof v->service - 1);
        memset(v->worker, 'w', sizeof v->worker - 1);
        memset(v->export_source, 'x', sizeof v->export_source - 1);
        memset(v->export_destination, 'y', sizeof v->export_destination - 1);
    }
    ck_assert_int_eq(lmo_permit_sign(key, &p, text, sizeof text, NULL), 0);
    ck_assert_int_eq(lmo_permit_verify(public, text, &q, NULL), 0);
    ck_assert(lmo_permit_same(&p, &q));
    ck_assert_int_eq(lmo_permit_sign(key, &p, text, 100, NULL), LMO_E_TOO_LARGE);
}
END_TEST

START_TEST(any_changed_character__is_refused_and_nothing_is_returned)
{
    struct lmo_permit p = a_permit(), q, untouched;
    char text[LMO_PERMIT_TEXT_MAX];
    ck_assert_int_eq(lmo_permit_sign(key, &p, text, sizeof text, NULL), 0);
    memset(&q, 0x55, sizeof q);
    untouched = q;
    for (size_t i = 0; text[i]; i++) {
        for (unsigned bit = 0; bit < 7; bit += 3) {
            char old = text[i];
            text[i] = (char)(old ^ (1 << bit));
            ck_assert_msg(lmo_permit_verify(public, text, &q, NULL) < 0, "character %zu, bit %u", i, bit);
            ck_assert(memcmp(&q, &untouched, sizeof q) == 0);
            text[i] = old;
        }
    }
    ck_assert_int_eq(lmo_permit_verify(public, text, &q, NULL), 0);
}
END_TEST

START_TEST(permit_of_another_key__is_forbidden_until_that_key_is_trusted_too)
{
    struct lmo_permit p = a_permit(), q;
    char text[LMO_PERMIT_TEXT_MAX], other[160], *a = NULL, *b = NULL, both[1024];
    snprintf(other, sizeof other, "%s/other", parent);
    ck_assert_int_eq(lmo_pki_init(other, NULL), 0);
    ck_assert_int_eq(lmo_permit_sign(key, &p, text, sizeof text, NULL), 0);
    snprintf(other, sizeof other, "%s/other/permit.pub", parent);
    struct lmo_permit_public *wrong = NULL;
    ck_assert_int_eq(lmo_permit_public_load(other, &wrong, NULL), 0);
    ck_assert_int_eq(lmo_permit_verify(wrong, text, &q, NULL), LMO_E_FORBIDDEN);
    lmo_permit_public_free(wrong);

    ck_assert_int_eq(lmo_fs_read_file(other, 4096, &a, NULL, NULL), 0);
    ck_assert_int_eq(lmo_fs_read_file(path_of("permit.pub"), 4096, &b, NULL, NULL), 0);
    snprintf(both, sizeof both, "%s%s", a, b);
    free(a);
    free(b);
    ck_assert_int_eq(lmo_fs_write_atomic(other, both, strlen(both), 0644, NULL), 0);
    ck_assert_int_eq(lmo_permit_public_load(other, &wrong, NULL), 0);
    ck_assert_int_eq(lmo_permit_verify(wrong, text, &q, NULL), 0);
    lmo_permit_public_free(wrong);
}
END_TEST

START_TEST(payload__is_not_looked_into_before_its_signature_holds)
{
    struct lmo_permit p = a_permit(), q;
    char text[LMO_PERMIT_TEXT_MAX], good[LMO_PERMIT_TEXT_MAX];
    ck_assert_int_eq(lmo_permit_sign(key, &p, good, sizeof good, NULL), 0);
    const char *signature = strstr(good, "\"signature\"");
    snprintf(text, sizeof text, "{\"payload\":\"Z2FyYmFnZQ==\",%s", signature);
    ck_assert_int_eq(lmo_permit_verify(public, text, &q, NULL), LMO_E_FORBIDDEN); /* not INVALID */
}
END_TEST

START_TEST(signed_payload_in_another_spelling__is_refused)
{
    struct lmo_permit p = a_permit(), q;
    char payload[LMO_PERMIT_PAYLOAD_MAX], changed[LMO_PERMIT_PAYLOAD_MAX + 64], text[LMO_PERMIT_TEXT_MAX];
    size_t len = 0;
    ck_assert_int_eq(lmo_permit_encode(&p, payload, sizeof payload, &len, NULL), 0);
    sign_raw(payload, text);
    ck_assert_int_eq(lmo_permit_verify(public, text, &q, NULL),
                     0); /* members in another order, blanks: the same bytes */
    static const struct {
        const char *from, *to;
        int want;
    } cases[] = {
        {"epoch 7\n", "epoch 07\n", LMO_E_INVALID},
        {"epoch 7\n", "epoch +7\n", LMO_E_INVALID},
        {"epoch 7\n", "epoch  7\n", LMO_E_INVALID},
        {"epoch 7\n", "epoch 7 \n", LMO_E_INVALID},
        {"epoch 7\n", "epoch 0\n", LMO_E_INVALID},
        {"epoch 7\n", "epoch 99999999999999999999\n", LMO_E_INVALID},
        {"epoch 7\n", "", LMO_E_INVALID},
        {"epoch 7\n", "epoch 7\nepoch 7\n", LMO_E_INVALID},
        {"final running\n", "final Running\n", LMO_E_INVALID},
        {"end\n", "end\nx", LMO_E_INVALID},
        {"end\n", "end", LMO_E_INVALID},
        {"volumes 1\n", "volumes 2\n", LMO_E_INVALID},
        {"volumes 1\n", "volumes 0\n", LMO_E_INVALID},
        {"volumes 1\n", "volumes 17\n", LMO_E_INVALID},
        {" v1.hv2.e7\n", "\n", LMO_E_INVALID},
        {" v1.hv2.e7\n", " v1.hv2.e7 more\n", LMO_E_INVALID},
        {" v1.hv2.e7\n", " v1.hv1.e6\n", LMO_E_INVALID},
        {"destination hv2\n", "destination hv1\n", LMO_E_INVALID},
        {"lmo-permit 1\n", "lmo-permit 2\n", LMO_E_UNSUPPORTED},
        {"lmo-permit 1\n", "lmo-grant 1\n", LMO_E_INVALID},
        {"expires_ms 1600000", "expires_ms 1000000", LMO_E_INVALID},
        {"expires_ms 1600000", "expires_ms 900000000000", LMO_E_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *at = strstr(payload, cases[i].from);
        ck_assert_ptr_nonnull(at);
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - payload), payload, cases[i].to,
                 at + strlen(cases[i].from));
        sign_raw(changed, text);
        ck_assert_msg(lmo_permit_verify(public, text, &q, NULL) == cases[i].want, "case %zu: %s", i, cases[i].to);
    }
}
END_TEST

START_TEST(permit_that_should_not_exist__cannot_be_signed)
{
    char text[LMO_PERMIT_TEXT_MAX];
    struct lmo_err err = {0};
#define REFUSED(change, field)                                                              \
    do {                                                                                    \
        struct lmo_permit p = a_permit();                                                   \
        change;                                                                             \
        ck_assert_int_eq(lmo_permit_sign(key, &p, text, sizeof text, &err), LMO_E_INVALID); \
        ck_assert_msg(strstr(err.text, field) != NULL, "%s", err.text);                     \
    } while (0)
    REFUSED(p.migration[0] = '9', "migration");
    REFUSED(p.vm_uuid[3] = 'G', "vm");
    REFUSED(p.epoch = 0, "epoch");
    REFUSED(p.source[0] = '\0', "source");
    REFUSED(strcpy(p.destination, "hv1"), "destination");
    REFUSED(strcpy(p.destination, "hv 2"), "destination");
    REFUSED(p.final_state = (enum lmo_permit_final)0, "final");
    REFUSED(p.expires_ms = p.issued_ms, "expires_ms");
    REFUSED(p.volume_count = LMO_VOLUMES_MAX + 1, "volumes");
    REFUSED(strcpy(p.volumes[0].export_source, "a\nend"), "export_source");
    REFUSED(strcpy(p.volumes[0].export_source, p.volumes[0].export_destination), "one export");
    REFUSED(p.volumes[0].service[0] = '\0', "service");
    REFUSED((p.volumes[1] = p.volumes[0], p.volume_count = 2), "repeats");
    REFUSED(memset(p.volumes[0].volume, 'x', sizeof p.volumes[0].volume), "volume");
}
END_TEST

START_TEST(oversized_and_malformed_envelopes__are_refused)
{
    static char huge[LMO_PERMIT_TEXT_MAX + 10];
    struct lmo_permit q;
    memset(huge, '[', sizeof huge - 1);
    ck_assert_int_eq(lmo_permit_verify(public, huge, &q, NULL), LMO_E_TOO_LARGE);
    huge[LMO_PERMIT_TEXT_MAX - 1] = '\0';
    ck_assert_int_eq(lmo_permit_verify(public, huge, &q, NULL), LMO_E_TOO_LARGE); /* too deep */
    static const char *const bad[] = {"",
                                      "{}",
                                      "[]",
                                      "null",
                                      "{\"payload\":\"\",\"signature\":\"\"}",
                                      "{\"payload\":\"AAAA\",\"signature\":\"AAAA\"",
                                      "{\"payload\":\"AAAA\",\"signature\":\"AAAA\",\"x\":1}",
                                      "{\"payload\":\"AAAA\",\"payload\":\"AAAA\",\"signature\":\"AAAA\"}",
                                      "{\"payload\":1,\"signature\":\"AAAA\"}",
                                      "{\"payload\":\"A=AA\",\"signature\":\"AAAA\"}",
                                      "{\"payload\":\"====\",\"signature\":\"AAAA\"}",
                                      "{\"payload\":\" AAAA \",\"signature\":\"AAAA\"}",
                                      "{\"payload\":\"AAB=\",\"signature\":\"AAAA\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_msg(lmo_permit_verify(public, bad[i], &q, NULL) == LMO_E_INVALID, "%s", bad[i]);
    }
    ck_assert_int_eq(lmo_permit_verify(public, NULL, &q, NULL), LMO_E_INVALID);
    ck_assert_int_eq(lmo_permit_verify(public, "{\"payload\":\"AAAA\",\"signature\":\"AAAA\"}", &q, NULL),
                     LMO_E_FORBIDDEN);
}
END_TEST

START_TEST(expiry__limits_arming_only)
{
    struct lmo_permit p = a_permit(), q;
    char text[LMO_PERMIT_TEXT_MAX];
    ck_assert_int_eq(lmo_permit_may_arm(&p, p.issued_ms, NULL), 0);
    ck_assert_int_eq(lmo_permit_may_arm(&p, p.expires_ms - 1, NULL), 0);
    ck_assert_int_eq(lmo_permit_may_arm(&p, p.expires_ms, NULL), LMO_E_REFUSED);
    ck_assert_int_eq(lmo_permit_may_arm(&p, p.issued_ms - LMO_PERMIT_SKEW_MS, NULL), 0);
    ck_assert_int_eq(lmo_permit_may_arm(&p, p.issued_ms - LMO_PERMIT_SKEW_MS - 1, NULL), LMO_E_REFUSED);
    ck_assert_int_eq(lmo_permit_sign(key, &p, text, sizeof text, NULL), 0);
    ck_assert_int_eq(lmo_permit_verify(public, text, &q, NULL), 0); /* long expired, still genuine */
}
END_TEST

START_TEST(permits_differ__when_anything_but_their_times_differs)
{
    struct lmo_permit a = a_permit(), b = a_permit();
    b.issued_ms++, b.expires_ms++;
    ck_assert(lmo_permit_same(&a, &b));
    b.epoch++;
    ck_assert(!lmo_permit_same(&a, &b));
    b = a;
    b.volumes[0].export_source[0] = 'w';
    ck_assert(!lmo_permit_same(&a, &b));
    b = a;
    b.final_state = LMO_PERMIT_FINAL_PAUSED;
    ck_assert(!lmo_permit_same(&a, &b));
}
END_TEST

static void *sign_and_verify(void *arg)
{
    struct lmo_permit p = a_permit(), q;
    char text[LMO_PERMIT_TEXT_MAX];
    p.epoch = (uint64_t)(uintptr_t)arg;
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(lmo_permit_sign(key, &p, text, sizeof text, NULL), 0);
        ck_assert_int_eq(lmo_permit_verify(public, text, &q, NULL), 0);
        ck_assert_uint_eq(q.epoch, p.epoch);
    }
    return NULL;
}

START_TEST(keys__serve_several_threads_at_once)
{
    pthread_t thread[4];
    for (uintptr_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, sign_and_verify, (void *)(i + 1)), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
}
END_TEST

START_TEST(private_key_that_others_can_read__is_not_used)
{
    struct lmo_permit_key *k = NULL;
    ck_assert_int_eq(chmod(path_of("permit.key"), 0640), 0);
    ck_assert_int_eq(lmo_permit_key_load(path_of("permit.key"), &k, NULL), LMO_E_REFUSED);
    ck_assert_ptr_null(k);
    ck_assert_int_eq(lmo_permit_key_load(path_of("ca.key"), &k, NULL), LMO_E_INVALID); /* P-256, not Ed25519 */
    ck_assert_int_eq(lmo_permit_key_load(path_of("nothing"), &k, NULL), LMO_E_IO);
    struct lmo_permit_public *p = NULL;
    ck_assert_int_eq(lmo_permit_public_load(path_of("ca.pem"), &p, NULL), LMO_E_INVALID);
    ck_assert_ptr_null(p);
}
END_TEST

Suite *pki_suite(void)
{
    Suite *s = suite_create("pki");
    TCase *ca = tcase_create("ca");
    tcase_add_checked_fixture(ca, make_parent, remove_parent);
    tcase_set_timeout(ca, 60);
    tcase_add_loop_test(ca, init__makes_private_keys_private_whatever_the_umask, 0, 2);
    tcase_add_test(ca, init__refuses_where_a_CA_is);
    tcase_add_test(ca, init__leaves_somebodys_directory_alone);
    tcase_add_test(ca, init_that_fails__leaves_nothing_behind);
    tcase_add_test(ca, issue_where_no_CA_is__says_so_and_leaves_no_file);
    tcase_add_test(ca, issued_certificates__are_what_strict_verifiers_accept);
    tcase_add_test(ca, identity_and_addresses__are_in_the_subject_alternative_names);
    tcase_add_test(ca, name_that_looks_like_a_host__is_not_taken_for_one);
    tcase_add_test(ca, default_life_is_90_days_and_a_short_one_is_kept);
    tcase_add_test(ca, issue__refuses_names_addresses_and_lives_that_cannot_be_right);
    tcase_add_test(ca, issue_again__is_refused_unless_it_is_a_renewal_which_keeps_the_addresses);
    tcase_add_test(ca, issues_at_the_same_time__all_end_up_in_the_index);
    tcase_add_test(ca, lock_that_is_held__is_waited_for_and_then_given_up);
    tcase_add_test(ca, revoked_certificate__is_refused_by_the_new_list_and_only_that_one);
    tcase_add_test(ca, revocation_by_name__takes_every_certificate_of_that_name);
    tcase_add_test(ca, crash_between_index_and_list__loses_no_revocation);
    tcase_add_test(ca, status__is_valid_then_expired_and_revoked_before_all);
    tcase_add_test(ca, damaged_index__stops_everything_and_names_the_line);
    suite_add_tcase(s, ca);
    TCase *permit = tcase_create("permit");
    tcase_add_checked_fixture(permit, init_keys, drop_keys);
    tcase_set_timeout(permit, 60);
    tcase_add_test(permit, permit__comes_back_as_it_was_signed);
    tcase_add_test(permit, largest_permit__fits);
    tcase_add_test(permit, any_changed_character__is_refused_and_nothing_is_returned);
    tcase_add_test(permit, permit_of_another_key__is_forbidden_until_that_key_is_trusted_too);
    tcase_add_test(permit, payload__is_not_looked_into_before_its_signature_holds);
    tcase_add_test(permit, signed_payload_in_another_spelling__is_refused);
    tcase_add_test(permit, permit_that_should_not_exist__cannot_be_signed);
    tcase_add_test(permit, oversized_and_malformed_envelopes__are_refused);
    tcase_add_test(permit, expiry__limits_arming_only);
    tcase_add_test(permit, permits_differ__when_anything_but_their_times_differs);
    tcase_add_test(permit, keys__serve_several_threads_at_once);
    tcase_add_test(permit, private_key_that_others_can_read__is_not_used);
    suite_add_tcase(s, permit);
    return s;
}
