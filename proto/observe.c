/* observe.c - a worker's host facts as JSON. */
#include "proto/observe.h"

#include "proto/codec.h"

static const struct lmo_field host_facts_fields[] = {
    LMO_F_TEXT(lmo_host_facts, host, LMO_FIELD_REQUIRED | LMO_FIELD_HOST),
    LMO_F_TEXT(lmo_host_facts, version, 0),
    LMO_F_TEXT(lmo_host_facts, boot, LMO_FIELD_REQUIRED),
    LMO_F_TEXT(lmo_host_facts, hypervisor, 0),
    LMO_F_TEXT(lmo_host_facts, peer_uri, 0),
    LMO_F_TEXT(lmo_host_facts, migration_uri, 0),
    LMO_F_TEXT(lmo_host_facts, network, 0),
    LMO_F_TEXT(lmo_host_facts, network_fabric, 0),
    LMO_F_TEXT(lmo_host_facts, fabric, 0),
    LMO_F_TEXT(lmo_host_facts, fabric_name, 0),
    LMO_F_TEXT(lmo_host_facts, volume, 0),
    LMO_F_TEXT(lmo_host_facts, volume_service, 0),
    LMO_F_TEXT(lmo_host_facts, volume_address, 0),
    LMO_F_INT(lmo_host_facts, realtime_us),
    LMO_F_UINT(lmo_host_facts, term, 0),
};
static const struct lmo_table host_facts_table = LMO_TABLE(host_facts_fields);

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
