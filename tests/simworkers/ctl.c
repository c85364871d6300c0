/* ctl.c - lmo-simctl: looks into the world of a simulated fleet and scripts it, from a process of its own.
 *
 *   lmo-simctl DIR look [GUEST]                  the guests (or that one) as they are, as JSON, and what was violated
 *   lmo-simctl DIR delay CALL MS                 that driver call takes so long from now on; 0: no longer
 *   lmo-simctl DIR fail CALL TIMES [after]       it fails so often: it was not done; after: it was, and nobody is told
 *   lmo-simctl DIR hold | release                jobs stay behind their open gates | go on
 *   lmo-simctl DIR freeze-unknown on | off       freezing finds nothing out
 *   lmo-simctl DIR finish-lost GUEST             the source's libvirt hears nothing of the destination and runs its guest
 *   lmo-simctl DIR copy-dies GUEST               the copy's process ends, and with it the job; exit status 1: it runs already
 *   lmo-simctl DIR shut-off GUEST | start GUEST  by its owner; exit status 1: not now
 *
 * What it says comes from the world and from nothing that LMO wrote down. */
#include "fakes/world.h"

#include "base/json.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DELAY_MAX_MS 600000
#define TIMES_MAX    1000000

static struct fake_guest *guest_named(struct fake_world *w, const char *name)
{
    for (unsigned n = 0; name && n < w->guest_count; n++) {
        if (strcmp(fake_guest(w, n)->name, name) == 0) {
            return fake_guest(w, n);
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------ look */

static json_t *copy_json(const struct fake_world *w, const struct fake_copy *c)
{
    bool runs = c->process && c->vcpus && !c->stopped;
    return json_pack("{s:s,s:b,s:b,s:b,s:b,s:b,s:b,s:b,s:b}", "host", w->hosts[c->host].name, "process", c->process,
                     "runs", runs, "defined", c->defined, "prepared", c->prepared, "incoming", c->incoming, "loaded",
                     c->loaded, "stopped", c->stopped, "paused_by_owner", c->paused_by_user);
}

static json_t *guest_json(struct fake_world *w, const struct fake_guest *g)
{
    json_t *copies = json_array(), *exports = json_array();
    for (unsigned i = 0; i < FAKE_COPIES; i++) {
        const struct fake_copy *c = &g->copies[i];
        if (c->used && (c->process || c->defined || c->prepared)) {
            json_array_append_new(copies, copy_json(w, c));
        }
    }
    for (unsigned v = 0; v < w->volume_count; v++) {
        for (unsigned e = 0; e < FAKE_EXPORTS; e++) {
            const struct fake_export *x = &g->volumes[v].exports[e];
            if (x->name[0] && x->offered) {
                json_array_append_new(exports, json_pack("{s:s,s:s,s:s}", "volume", g->volumes[v].name, "export",
                                                         x->name, "host", x->host));
            }
        }
    }
    return json_pack("{s:s,s:s,s:o,s:o,s:b,s:s,s:b,s:I}", "name", g->name, "uuid", g->uuid, "copies", copies, "exports",
                     exports, "job", g->job.running, "single", g->single, "dual", g->dual, "moves",
                     (json_int_t)g->moves);
}

static int look(struct fake_world *w, const char *name)
{
    json_t *guests = json_array();
    fake_lock(w);
    for (unsigned n = 0; n < w->guest_count; n++) {
        if (!name || strcmp(fake_guest(w, n)->name, name) == 0) {
            json_array_append_new(guests, guest_json(w, fake_guest(w, n)));
        }
    }
    LMO_AUTO_JSON json_t *j =
        json_pack("{s:o,s:s,s:I}", "guests", guests, "violation", w->violation, "torn", (json_int_t)w->torn);
    fake_unlock(w);
    LMO_AUTO_FREE char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    if (!text) {
        return 2;
    }
    printf("%s\n", text);
    return 0;
}

/* ------------------------------------------------------------------ orders */

static int number(const char *text, unsigned long max, unsigned long *ret)
{
    char *end = NULL;
    unsigned long n = text ? strtoul(text, &end, 10) : 0;
    if (!text || end == text || *end || n > max) {
        return -1;
    }
    *ret = n;
    return 0;
}

static int about_call(struct fake_world *w, const char *what, const char *call_name, const char *value,
                      const char *more)
{
    int call = call_name ? fake_call_from_name(call_name) : -1;
    unsigned long n = 0;
    bool delays = strcmp(what, "delay") == 0;
    if (call < 0 || number(value, delays ? DELAY_MAX_MS : TIMES_MAX, &n) < 0 || (more && strcmp(more, "after") != 0)) {
        (void)fprintf(stderr, "lmo-simctl: %s CALL NUMBER, with a call of tests/fakes/world.h\n", what);
        return 2;
    }
    if (delays) {
        fake_delay(w, (enum fake_call)call, n);
    } else {
        fake_fail(w, (enum fake_call)call, more ? LMO_E_UNKNOWN : LMO_E_UNAVAILABLE, (unsigned)n, more != NULL);
    }
    return 0;
}

static int about_guest(struct fake_world *w, const char *what, const char *name)
{
    struct fake_guest *g = guest_named(w, name);
    if (!g) {
        (void)fprintf(stderr, "lmo-simctl: %s GUEST, with a guest of this world\n", what);
        return 2;
    }
    if (strcmp(what, "finish-lost") == 0) {
        fake_give_up_of(w, g);
        return 0;
    }
    if (strcmp(what, "copy-dies") == 0) {
        bool died = fake_copy_dies_of(w, g);
        if (died) {
            fake_give_up_of(w, g); /* its end reaches the source's libvirt as an error */
        }
        return died ? 0 : 1;
    }
    return fake_set_power(w, g, strcmp(what, "start") == 0) ? 0 : 1;
}

static int order(struct fake_world *w, char **argv)
{
    const char *what = argv[0], *first = argv[1], *second = first ? argv[2] : NULL, *third = second ? argv[3] : NULL;
    if (strcmp(what, "look") == 0) {
        return look(w, first);
    }
    if (strcmp(what, "delay") == 0 || strcmp(what, "fail") == 0) {
        return about_call(w, what, first, second, third);
    }
    if (strcmp(what, "hold") == 0 || strcmp(what, "release") == 0) {
        fake_hold(w, strcmp(what, "hold") == 0);
        return 0;
    }
    if (strcmp(what, "freeze-unknown") == 0 && first) {
        fake_lock(w);
        w->freeze_unknown = strcmp(first, "on") == 0;
        fake_unlock(w);
        return 0;
    }
    if (strcmp(what, "finish-lost") == 0 || strcmp(what, "copy-dies") == 0 || strcmp(what, "shut-off") == 0 ||
        strcmp(what, "start") == 0) {
        return about_guest(w, what, first);
    }
    (void)fprintf(stderr, "lmo-simctl: unknown order '%s'\n", what);
    return 2;
}

int main(int argc, char **argv)
{
    char path[LMO_PATH_MAX];
    struct fake_world *w = NULL;
    struct lmo_err err = {0};
    if (argc < 3) {
        (void)fprintf(stderr, "usage: lmo-simctl DIR ORDER [ARGUMENT...]; see the head of tests/simworkers/ctl.c\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/world", argv[1]);
    if (fake_world_join(path, &w, &err) < 0) {
        (void)fprintf(stderr, "lmo-simctl: %s\n", err.text);
        return 2;
    }
    int r = order(w, argv + 2);
    fake_world_leave(w);
    return r;
}
