/* observe.c - a worker's host facts as JSON. */
#include "proto/observe.h"

#include "proto/codec.h"

#include <string.h>

static const struct lmo_field link_fields[] = {
    LMO_F_TEXT(lmo_link, name, LMO_FIELD_REQUIRED | LMO_FIELD_HOST),
    LMO_F_TEXT(lmo_link, address, LMO_FIELD_REQUIRED),
    LMO_F_UINT(lmo_link, rate_bytes_per_s, 0),
};
static const struct lmo_table link_table = LMO_TABLE(link_fields);

static const struct lmo_field huge_pages_fields[] = {
    LMO_F_UINT(lmo_huge_pages, size_bytes, 0),
    LMO_F_UINT(lmo_huge_pages, total_bytes, 0),
    LMO_F_UINT(lmo_huge_pages, free_bytes, 0),
};
static const struct lmo_table huge_pages_table = LMO_TABLE(huge_pages_fields);

static const struct lmo_field host_facts_fields[] = {
    LMO_F_TEXT(lmo_host_facts, host, LMO_FIELD_REQUIRED | LMO_FIELD_HOST),
    LMO_F_TEXT(lmo_host_facts, version, 0),
    LMO_F_TEXT(lmo_host_facts, boot, LMO_FIELD_REQUIRED),
    LMO_F_TEXT(lmo_host_facts, hypervisor, 0),
    LMO_F_TEXT(lmo_host_facts, peer_uri, 0),
    LMO_F_TEXT(lmo_host_facts, network, 0),
    LMO_F_TEXT(lmo_host_facts, network_fabric, 0),
    LMO_F_TEXT(lmo_host_facts, fabric, 0),
    LMO_F_TEXT(lmo_host_facts, fabric_name, 0),
    LMO_F_TEXT(lmo_host_facts, volume, 0),
    LMO_F_TEXT(lmo_host_facts, volume_service, 0),
    LMO_F_TEXT(lmo_host_facts, volume_address, 0),
    LMO_F_INT(lmo_host_facts, realtime_us),
    LMO_F_UINT(lmo_host_facts, term, 0),
    LMO_F_UINT(lmo_host_facts, epoch, 0),
    LMO_F_UINT(lmo_host_facts, protocol_min, 0),
    LMO_F_UINT(lmo_host_facts, protocol_max, 0),
    LMO_F_ARRAY(lmo_host_facts, links, link_count, link_table),
    LMO_F_UINT(lmo_host_facts, memory_total_bytes, 0),
    LMO_F_UINT(lmo_host_facts, memory_free_bytes, 0),
    LMO_F_ARRAY(lmo_host_facts, huge_pages, huge_page_count, huge_pages_table),
    LMO_F_UINT(lmo_host_facts, cpus, 0),
    LMO_F_TEXT(lmo_host_facts, cpu, 0),
    LMO_F_TEXT(lmo_host_facts, machines, 0),
    LMO_F_TEXT(lmo_host_facts, services, 0),
};
static const struct lmo_table host_facts_table = LMO_TABLE(host_facts_fields);

const struct lmo_link *lmo_host_link(const struct lmo_host_facts *f, const char *name)
{
    for (unsigned i = 0; i < f->link_count; i++) {
        if (strcmp(f->links[i].name, name) == 0) {
            return &f->links[i];
        }
    }
    return NULL;
}

json_t *lmo_host_facts_to_json(const struct lmo_host_facts *f)
{
    return lmo_codec_encode(&host_facts_table, f, false);
}

int lmo_host_facts_from_json(const json_t *j, struct lmo_host_facts *ret, struct lmo_err *err)
{
    struct lmo_host_facts f = {0};
    int r = lmo_codec_decode(&host_facts_table, j, &f, err);
    if (r == 0) {
        *ret = f;
    }
    return r;
}
