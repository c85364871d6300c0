/* permit.c - permits are really signed and verified; keys are made once, and a verdict is remembered by content.
 *
 * The key pair is fixed: a run depends on its seed alone. A process that ends takes no key with it. */
#include "sim_private.h"

#include "base/assert.h"
#include "pki/permit.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CACHE_MAX 256

int __real_lmo_permit_key_load(const char *path, struct lmo_permit_key **ret, struct lmo_err *err);
int __real_lmo_permit_public_load(const char *path, struct lmo_permit_public **ret, struct lmo_err *err);
int __real_lmo_permit_verify(const struct lmo_permit_public *pub, const char *text, struct lmo_permit *ret,
                             struct lmo_err *err);
int __wrap_lmo_permit_key_load(const char *path, struct lmo_permit_key **ret, struct lmo_err *err);
int __wrap_lmo_permit_public_load(const char *path, struct lmo_permit_public **ret, struct lmo_err *err);
struct lmo_permit_key *__wrap_lmo_permit_key_free(struct lmo_permit_key *key);
struct lmo_permit_public *__wrap_lmo_permit_public_free(struct lmo_permit_public *pub);
int __wrap_lmo_permit_verify(const struct lmo_permit_public *pub, const char *text, struct lmo_permit *ret,
                             struct lmo_err *err);

static struct lmo_permit_key *signer;
static struct lmo_permit_public *verifier;

struct cached {
    char *text;
    struct lmo_permit permit;
};
static struct cached cache[CACHE_MAX];
static unsigned cache_next;

static void pem_file(EVP_PKEY *key, bool public, char path[64])
{
    int fd = memfd_create("permit", 0);
    lmo_assert(fd >= 0 && fchmod(fd, 0600) == 0);
    FILE *f = fdopen(dup(fd), "w");
    lmo_assert(f);
    int ok = public ? PEM_write_PUBKEY(f, key) : PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    lmo_assert(ok == 1 && fclose(f) == 0);
    snprintf(path, 64, "/proc/self/fd/%d", fd); /* stays open: two small files */
}

void sim_permits_init(void)
{
    if (signer) {
        return;
    }
    static const unsigned char secret[32] = "a key for simulated fleets only";
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, secret, sizeof secret);
    char private_path[64], public_path[64];
    struct lmo_err err = {0};
    lmo_assert(key);
    pem_file(key, false, private_path);
    pem_file(key, true, public_path);
    EVP_PKEY_free(key);
    if (__real_lmo_permit_key_load(private_path, &signer, &err) < 0 ||
        __real_lmo_permit_public_load(public_path, &verifier, &err) < 0) {
        fprintf(stderr, "simulator: permit keys: %s\n", err.text);
        lmo_unreachable("no permit keys");
    }
}

int __wrap_lmo_permit_key_load(const char *path, struct lmo_permit_key **ret, struct lmo_err *err)
{
    (void)path;
    (void)err;
    *ret = signer;
    return 0;
}

int __wrap_lmo_permit_public_load(const char *path, struct lmo_permit_public **ret, struct lmo_err *err)
{
    (void)path;
    (void)err;
    *ret = verifier;
    return 0;
}

struct lmo_permit_key *__wrap_lmo_permit_key_free(struct lmo_permit_key *key)
{
    (void)key;
    return NULL;
}

struct lmo_permit_public *__wrap_lmo_permit_public_free(struct lmo_permit_public *pub)
{
    (void)pub;
    return NULL;
}

/* Only good ones are kept: a bad signature is looked at every time. */
int __wrap_lmo_permit_verify(const struct lmo_permit_public *pub, const char *text, struct lmo_permit *ret,
                             struct lmo_err *err)
{
    for (unsigned i = 0; i < CACHE_MAX; i++) {
        if (cache[i].text && strcmp(cache[i].text, text) == 0) {
            *ret = cache[i].permit;
            return 0;
        }
    }
    int r = __real_lmo_permit_verify(pub, text, ret, err);
    if (r == 0) {
        struct sim_process *before = sim_own(NULL);
        struct cached *c = &cache[cache_next++ % CACHE_MAX];
        free(c->text);
        c->text = strdup(text);
        lmo_assert(c->text);
        c->permit = *ret;
        (void)sim_own(before);
    }
    return r;
}
