/* admission_show.c - what people and clients see of admission: what holds a migration, what a host's limits are. */
#include "base/json.h"
#include "base/str.h"
#include "engine/internal.h"
#include "engine/record_codec.h"

#include <stdio.h>
#include <string.h>

const struct lmo_hold *engine_admission_hold(const struct entry *entry)
{
    if (entry->item == LMO_NONE) {
        return NULL;
    }
    const struct lmo_adm_item *i = &entry->engine->admission.fleet.items[entry->item];
    return i->state == LMO_ADM_QUEUED && i->hold.limit != LMO_LIMIT_NONE ? &i->hold : NULL;
}

void engine_admission_watch(struct entry *entry)
{
    if (entry->item != LMO_NONE) {
        entry->engine->admission.watched[entry->item] = true;
    }
}

void engine_admission_tell(struct entry *entry)
{
    const struct lmo_hold *h = engine_admission_hold(entry);
    if (!h || (entry->told_limit == h->limit && entry->told_position == h->position)) {
        return;
    }
    entry->told_limit = h->limit;
    entry->told_position = h->position;
    struct lmo_event ev = {.kind = LMO_EV_TIMER}; /* changes nothing but the version: those who wait get an answer */
    struct lmo_err err = {0};
    (void)engine_apply(entry, &ev, &err);
}

static const char *host_name(const struct entry *entry, const struct lmo_hold *h)
{
    const struct lmo_migration *m = engine_record(entry);
    if (h->host == LMO_NONE) {
        return "";
    }
    return h->host == entry->engine->admission.fleet.items[entry->item].source ? m->source : m->destination;
}

static const char *ordinal_suffix(uint32_t n)
{
    return n % 100 >= 11 && n % 100 <= 13 ? "th" : n % 10 == 1 ? "st" : n % 10 == 2 ? "nd" : n % 10 == 3 ? "rd" : "th";
}

void engine_admission_hold_text(const struct entry *entry, char *ret, size_t size)
{
    const struct lmo_hold *h = engine_admission_hold(entry);
    const char *link = entry->engine->admission.limits.link;
    if (!h) {
        (void)snprintf(ret, size, "admission");
        return;
    }
    const char *host = host_name(entry, h);
    unsigned long long in_use = h->in_use, max = h->max, needed = h->needed;
    char what[LMO_TEXT_MAX] = "";
    switch (h->limit) {
    case LMO_LIMIT_HOST: (void)snprintf(what, sizeof what, "host %s, which cannot be reached", host); break;
    case LMO_LIMIT_FLEET:
        (void)snprintf(what, sizeof what, "the fleet's limit (%llu of %llu migrations run)", in_use, max);
        break;
    case LMO_LIMIT_OUTGOING:
        (void)snprintf(what, sizeof what, "an outgoing slot of host %s (%llu of %llu in use)", host, in_use, max);
        break;
    case LMO_LIMIT_INCOMING:
        (void)snprintf(what, sizeof what, "an incoming slot of host %s (%llu of %llu in use)", host, in_use, max);
        break;
    case LMO_LIMIT_BANDWIDTH:
        (void)snprintf(what, sizeof what, "bandwidth of host %s's link '%s' (%llu of %llu MiB/s promised, needs %llu)",
                       host, link, in_use >> 20, max >> 20, needed >> 20);
        break;
    case LMO_LIMIT_MEMORY:
        (void)snprintf(what, sizeof what, "memory of host %s (%llu of %llu MiB reserved, needs %llu)", host,
                       in_use >> 20, max >> 20, needed >> 20);
        break;
    case LMO_LIMIT_HUGE_PAGES:
        (void)snprintf(what, sizeof what, "huge pages of host %s (%llu of %llu MiB reserved, needs %llu)", host,
                       in_use >> 20, max >> 20, needed >> 20);
        break;
    case LMO_LIMIT_PREDICTION: (void)snprintf(what, sizeof what, "a better prediction of its convergence"); break;
    case LMO_LIMIT_ASKING: (void)snprintf(what, sizeof what, "host %s to tell its free memory", host); break;
    case LMO_LIMIT_FREEING:
        (void)snprintf(what, sizeof what, "others to give up bandwidth of host %s's link '%s'", host, link);
        break;
    case LMO_LIMIT_NONE:
    case LMO_LIMIT_COUNT: break;
    }
    (void)snprintf(ret, size, "%s; %u%s in line", what, h->position, ordinal_suffix(h->position));
}

static json_t *held_by(const struct entry *entry, const struct lmo_hold *h)
{
    json_t *o = json_object();
    const char *host = host_name(entry, h);
    bool link = h->limit == LMO_LIMIT_BANDWIDTH || h->limit == LMO_LIMIT_FREEING;
    int r = lmo_json_put_str(o, "limit", lmo_limit_text(h->limit));
    r |= lmo_json_put(o, "host", host[0] ? json_string(host) : json_null());
    r |= lmo_json_put(o, "link", link ? json_string(entry->engine->admission.limits.link) : json_null());
    r |= lmo_json_put_u64(o, "in_use", h->in_use);
    r |= lmo_json_put_u64(o, "max", h->max);
    r |= lmo_json_put_u64(o, "needed", h->needed);
    if (r) {
        json_decref(o);
        return NULL;
    }
    return o;
}

json_t *engine_migration_json(const struct lmo_migration *m, const struct entry *entry)
{
    const struct lmo_hold *h = entry ? engine_admission_hold(entry) : NULL;
    json_t *o = lmo_migration_to_rest(m);
    int r = lmo_json_put(o, "share_bytes_per_s",
                         m->share_bytes_per_s ? json_integer((json_int_t)m->share_bytes_per_s) : json_null());
    r |= lmo_json_put(o, "queue_position", h ? json_integer(h->position) : json_null());
    r |= lmo_json_put(o, "held_by", h ? held_by(entry, h) : json_null());
    if (h && h->limit != LMO_LIMIT_PREDICTION) { /* what was predicted is in the record itself */
        char text[LMO_TEXT_MAX];
        engine_admission_hold_text(entry, text, sizeof text);
        r |= lmo_json_put_str(o, "waiting_for", text);
        r |= lmo_json_put_i64(o, "waiting_since_ms", m->created_ms);
    }
    if (r) {
        json_decref(o);
        return NULL;
    }
    return o;
}

int engine_admission_what_if(struct lmo_engine *e, const struct lmo_migration *m, char *ret_held, size_t size,
                             json_t **ret_result)
{
    struct admission *a = &e->admission;
    struct entry *entry = engine_entry_new(e, m, 0);
    const struct lmo_adm_fleet before = a->fleet;
    LMO_AUTO_FREE struct lmo_adm_item *items = entry ? calloc(before.item_count, sizeof *items) : NULL;
    LMO_AUTO_FREE struct lmo_adm_host *hosts = entry ? calloc(before.host_count + 1, sizeof *hosts) : NULL;
    json_t *shown = NULL;
    if (items && hosts) {
        memcpy(items, before.items, before.item_count * sizeof *items);
        memcpy(hosts, before.hosts, before.host_count * sizeof *hosts);
        lmo_admission_decide(&a->fleet);
        ret_held[0] = '\0';
        if (engine_admission_hold(entry) && !a->fleet.items[entry->item].admitted) {
            engine_admission_hold_text(entry, ret_held, size);
        }
        shown = engine_migration_json(m, entry);
        memcpy(before.items, items, before.item_count * sizeof *items); /* as if nobody had looked */
        memcpy(before.hosts, hosts, before.host_count * sizeof *hosts);
        a->fleet = before;
    }
    if (entry) {
        engine_entry_free(entry);
    }
    (void)(json_object_del(shown, "id") | json_object_del(shown, "version") | json_object_del(shown, "epoch"));
    *ret_result = shown;
    return shown ? 0 : LMO_E_NO_MEMORY;
}

/* "limits": what is in force, and which of it was set for this host; "in_use": what migrations take of it. */
int engine_admission_host_json(const struct lmo_engine *e, const struct host *h, json_t *to)
{
    const struct lmo_adm_host *a = &e->admission.fleet.hosts[h->slot];
    const uint32_t given = h->row.limits.given;
    json_t *limits = json_object(), *used = json_object(), *own = json_array();
    int r = lmo_json_put_u64(limits, "max_incoming", a->max_incoming);
    r |= lmo_json_put_u64(limits, "max_outgoing", a->max_outgoing);
    r |= lmo_json_put(limits, "max_bandwidth_bytes_per_s",
                      a->rate_bytes_per_s ? json_integer((json_int_t)a->rate_bytes_per_s) : json_null());
    r |= lmo_json_put_u64(limits, "memory_keep_free_bytes", engine_admission_keep_free(e, h));
    static const char *const names[] = {"max_incoming", "max_outgoing", "max_bandwidth_bytes_per_s",
                                        "memory_keep_free_bytes"};
    for (unsigned bit = 0; bit < sizeof names / sizeof names[0]; bit++) {
        r |= (given >> bit) & 1U ? lmo_json_add(own, json_string(names[bit])) : 0;
    }
    r |= lmo_json_put(limits, "set_for_this_host", own);
    r |= lmo_json_put_str(limits, "link", e->admission.limits.link);
    r |= lmo_json_put_u64(used, "incoming", a->incoming);
    r |= lmo_json_put_u64(used, "outgoing", a->outgoing);
    r |= lmo_json_put_u64(used, "bandwidth_bytes_per_s", a->held_bytes_per_s);
    r |= lmo_json_put_u64(used, "memory_reserved_bytes", a->pool_used[0]);
    r |= lmo_json_put(to, "limits", limits);
    r |= lmo_json_put(to, "in_use", used);
    return r;
}
