/* config.c - one table of keys, one table of drivers per kind. A new driver is one more row. */
#include "workers/config.h"

#include "base/id.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static const struct lmo_conf_key keys[] = {
    {"worker", "host", LMO_CONF_NAME, true, NULL, 0, 0, "name of this host, as in its certificate"},
    {"worker", "listen", LMO_CONF_ADDRESS, true, NULL, 0, 0, "address:port that coordinator and workers connect to"},
    {"worker", "state_dir", LMO_CONF_PATH, true, NULL, 0, 0, "directory of the journal; made if it is missing"},
    {"worker", "log_level", LMO_CONF_STRING, false, "info", 0, 0, "debug, info, warn or error"},
    {"worker", "log_file", LMO_CONF_PATH, false, NULL, 0, 0,
     "file that log lines are appended to instead of standard error; opened anew on SIGHUP, after a rotation"},
    {"worker", "high_priority", LMO_CONF_BOOL, false, "yes", 0, 0,
     "run before ordinary programs (nice -10): a paused guest waits for this one, next to guests that are busy"},
    {"worker", "log_json", LMO_CONF_BOOL, false, "no", 0, 0, "log lines as JSON instead of key=value"},
    {"tls", "ca", LMO_CONF_PATH, true, NULL, 0, 0, "PEM file of the CA that issued every certificate"},
    {"tls", "cert", LMO_CONF_PATH, true, NULL, 0, 0, "this worker's certificate, role worker"},
    {"tls", "key", LMO_CONF_PATH, true, NULL, 0, 0, "its private key, readable by the worker only"},
    {"tls", "crl", LMO_CONF_PATH, true, NULL, 0, 0, "PEM file of the CA's revocation list"},
    {"tls", "permit_key", LMO_CONF_PATH, true, NULL, 0, 0, "public key (PEM) that verifies the coordinator's permits"},
    {"hypervisor", "driver", LMO_CONF_NAME, false, NULL, 0, 0, "libvirt"},
    {"hypervisor", "uri", LMO_CONF_STRING, false, "qemu:///system", 1, 255, "how this worker reaches its hypervisor"},
    {"hypervisor", "peer_uri", LMO_CONF_STRING, false, NULL, 0, 255,
     "how another host's hypervisor reaches this one; when absent qemu+tls:// with the address of [worker] listen"},
    {"hypervisor", "tls", LMO_CONF_BOOL, false, "yes", 0, 0,
     "guests' memory is sent over TLS, and peer_uri has to be of an encrypted kind; no: in a laboratory only"},
    {"link *", "address", LMO_CONF_STRING, true, NULL, 2, LMO_ADDRESS_MAX - 1, "this host's own address in that network"},
    {"link *", "rate", LMO_CONF_UINT, true, NULL, 1, INT64_MAX,
     "bytes per second that migrations may use of it, in both directions together"},
    {"network", "driver", LMO_CONF_NAME, false, NULL, 0, 0, "ovn"},
    {"network", "fabric", LMO_CONF_NAME, false, NULL, 0, 0, "name of the fabric that this host is part of"},
    {"network", "chassis", LMO_CONF_NAME, false, NULL, 0, 0,
     "this host's name in the fabric: the same as [worker] host"},
    {"network", "ovsdb", LMO_CONF_STRING, false, "unix:/run/openvswitch/db.sock", 1, 255,
     "the host's Open vSwitch database"},
    {"network", "bridge", LMO_CONF_STRING, false, "br-int", 1, 31, "the integration bridge"},
    {"network", "openflow", LMO_CONF_STRING, false, "unix:/run/openvswitch/br-int.mgmt", 1, 255,
     "the bridge's OpenFlow socket"},
    {"fabric", "driver", LMO_CONF_NAME, false, NULL, 0, 0, "ovn"},
    {"fabric", "name", LMO_CONF_NAME, false, NULL, 0, 0, "name of the fabric whose databases this worker serves"},
    {"fabric", "northbound", LMO_CONF_STRING, false, NULL, 0, 255, "OVN northbound database"},
    {"fabric", "southbound", LMO_CONF_STRING, false, NULL, 0, 255, "OVN southbound database"},
    {"volume", "driver", LMO_CONF_NAME, false, NULL, 0, 0, "nbd"},
    {"volume", "service", LMO_CONF_NAME, false, NULL, 0, 0, "name of the volume service"},
    {"volume", "address", LMO_CONF_STRING, false, NULL, 0, 255,
     "address:port that guests reach the service at; several with commas"},
    {"volume", "qmp", LMO_CONF_PATH, false, NULL, 0, 0, "the service's QMP socket"},
};

/* ------------------------------------------------------------------ drivers by name */

struct opened {
    const struct lmo_conf *conf;
    lmo_hv_event_fn *on_event;
    void *event_arg;
    struct lmo_worker_drivers *drivers;
};

static int open_libvirt(const struct opened *o, struct lmo_err *err)
{
    struct lmo_hypervisor_config cfg = {.on_event = o->on_event, .arg = o->event_arg};
    LMO_COPY(cfg.uri, lmo_conf_str(o->conf, "hypervisor", "uri"));
    LMO_COPY(cfg.state_dir, lmo_conf_str(o->conf, "worker", "state_dir"));
    cfg.tls = lmo_conf_bool(o->conf, "hypervisor", "tls");
    return lmo_hypervisor_libvirt_open(&cfg, &o->drivers->hypervisor, err);
}

static int open_ovn_network(const struct opened *o, struct lmo_err *err)
{
    return lmo_network_ovn_open(lmo_conf_str(o->conf, "network", "ovsdb"), lmo_conf_str(o->conf, "network", "openflow"),
                                lmo_conf_str(o->conf, "network", "bridge"), &o->drivers->network, err);
}

static int open_ovn_fabric(const struct opened *o, struct lmo_err *err)
{
    return lmo_fabric_ovn_open(lmo_conf_str(o->conf, "fabric", "northbound"),
                               lmo_conf_str(o->conf, "fabric", "southbound"), &o->drivers->fabric, err);
}

static int open_nbd(const struct opened *o, struct lmo_err *err)
{
    return lmo_volume_nbd_open(lmo_conf_str(o->conf, "volume", "qmp"), lmo_conf_str(o->conf, "worker", "state_dir"),
                               &o->drivers->volume, err);
}

static const struct driver {
    const char *section, *name;
    const char *needs[4]; /* keys of the section that this driver cannot do without */
    int (*open)(const struct opened *o, struct lmo_err *err);
} drivers[] = {
    {"hypervisor", "libvirt", {0}, open_libvirt},
    {"network", "ovn", {"fabric"}, open_ovn_network},
    {"fabric", "ovn", {"name", "northbound", "southbound"}, open_ovn_fabric},
    {"volume", "nbd", {"service", "address", "qmp"}, open_nbd},
};
static const char *const sections[] = {"hypervisor", "network", "fabric", "volume"};

static const struct driver *find_driver(const char *section, const char *name)
{
    for (size_t i = 0; i < sizeof drivers / sizeof drivers[0]; i++) {
        if (strcmp(drivers[i].section, section) == 0 && strcmp(drivers[i].name, name) == 0) {
            return &drivers[i];
        }
    }
    return NULL;
}

static bool has_section(const struct lmo_conf *conf, const char *section)
{
    const char *s;
    for (size_t i = 0; (s = lmo_conf_section_at(conf, i)); i++) {
        if (strcmp(s, section) == 0) {
            return true;
        }
    }
    return false;
}

static void drivers_close(void *arg, struct lmo_worker_drivers *d)
{
    (void)arg;
    if (d->hypervisor) {
        d->hypervisor->ops->close(d->hypervisor);
    }
    if (d->network) {
        d->network->ops->close(d->network);
    }
    if (d->fabric) {
        d->fabric->ops->close(d->fabric);
    }
    if (d->volume) {
        d->volume->ops->close(d->volume);
    }
    *d = (struct lmo_worker_drivers){0};
}

static int drivers_open(void *arg, lmo_hv_event_fn *on_event, void *event_arg, struct lmo_worker_drivers *ret,
                        struct lmo_err *err)
{
    struct lmo_worker_drivers d = {0};
    struct opened o = {.conf = arg, .on_event = on_event, .event_arg = event_arg, .drivers = &d};
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        if (!has_section(arg, sections[i])) {
            continue;
        }
        int r = find_driver(sections[i], lmo_conf_str(arg, sections[i], "driver"))->open(&o, err);
        if (r < 0) {
            drivers_close(NULL, &d);
            return lmo_err_prefix(err, "[%s]", sections[i]);
        }
    }
    *ret = d;
    return 0;
}

/* ------------------------------------------------------------------ the whole file */

static int check_section(const struct lmo_conf *conf, const char *path, const char *section, struct lmo_err *err)
{
    const char *name = lmo_conf_str(conf, section, "driver");
    const struct driver *d = find_driver(section, name);
    if (!d) {
        return lmo_fail(err, LMO_E_INVALID, "%s: [%s] driver: '%s' is not known", path, section, name);
    }
    for (size_t i = 0; i < sizeof d->needs / sizeof d->needs[0] && d->needs[i]; i++) {
        if (!lmo_conf_is_set(conf, section, d->needs[i])) {
            return lmo_fail(err, LMO_E_INVALID, "%s: [%s] %s: the driver '%s' needs it", path, section, d->needs[i],
                            name);
        }
    }
    return 0;
}

/* What another host's libvirt is told to connect to. */
static int read_peer_uri(const struct lmo_conf *conf, const char *path, struct lmo_host_facts *f, struct lmo_err *err)
{
    static const char *const plain[] = {"qemu+tcp:", "qemu+unix:"};
    char host[LMO_ADDRESS_MAX];
    uint16_t port;
    const char *given = lmo_conf_str(conf, "hypervisor", "peer_uri");
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        if (lmo_conf_bool(conf, "hypervisor", "tls") && strncmp(given, plain[i], strlen(plain[i])) == 0) {
            return lmo_fail(err, LMO_E_INVALID,
                            "%s: [hypervisor] peer_uri: %s is not encrypted; right would be qemu+tls://, or tls = no in a laboratory",
                            path, plain[i]);
        }
    }
    if (given[0]) {
        LMO_COPY(f->peer_uri, given);
        return 0;
    }
    int r = lmo_address_split(lmo_conf_str(conf, "worker", "listen"), host, sizeof host, &port, err);
    if (r < 0) {
        return r;
    }
    if (strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 || !lmo_conf_bool(conf, "hypervisor", "tls")) {
        return lmo_fail(err, LMO_E_INVALID,
                        "%s: [hypervisor] peer_uri: is needed %s: how another host's libvirt reaches this one", path,
                        lmo_conf_bool(conf, "hypervisor", "tls") ? "because [worker] listen names no address" : "with tls = no");
    }
    bool v6 = strchr(host, ':') != NULL;
    (void)snprintf(f->peer_uri, sizeof f->peer_uri, "qemu+tls://%s%s%s/system", v6 ? "[" : "", host, v6 ? "]" : "");
    return 0;
}

/* [link NAME] sections: the networks of this host that have a name. */
static int read_links(const struct lmo_conf *conf, const char *path, struct lmo_host_facts *f, struct lmo_err *err)
{
    const char *section, *name;
    unsigned char binary[sizeof(struct in6_addr)];
    for (size_t i = 0; (section = lmo_conf_section_at(conf, i)); i++) {
        if (!(name = lmo_conf_section_name(section, "link"))) {
            continue;
        }
        const char *address = lmo_conf_str(conf, section, "address");
        if (!lmo_name_valid(name)) {
            return lmo_fail(err, LMO_E_INVALID, "%s: [%s]: the name must be of letters, digits, '.', '_', '-'", path, section);
        }
        if (inet_pton(AF_INET, address, binary) != 1 && inet_pton(AF_INET6, address, binary) != 1) {
            return lmo_fail(err, LMO_E_INVALID, "%s: [%s] address: must be an IP address, without a port", path, section);
        }
        if (f->link_count == LMO_LINKS_MAX) {
            return lmo_fail(err, LMO_E_LIMIT, "%s: [%s]: more than %d links", path, section, LMO_LINKS_MAX);
        }
        struct lmo_link *l = &f->links[f->link_count++];
        LMO_COPY(l->name, name);
        LMO_COPY(l->address, address);
        l->rate_bytes_per_s = lmo_conf_uint(conf, section, "rate");
    }
    return 0;
}

static int check(const struct lmo_conf *conf, const char *path, enum lmo_log_level *ret_level, struct lmo_err *err)
{
    if (lmo_log_level_from_name(lmo_conf_str(conf, "worker", "log_level"), ret_level) < 0) {
        return lmo_fail(err, LMO_E_INVALID, "%s: [worker] log_level: must be debug, info, warn or error", path);
    }
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        int r = has_section(conf, sections[i]) ? check_section(conf, path, sections[i], err) : 0;
        if (r < 0) {
            return r;
        }
    }
    const char *chassis = lmo_conf_str(conf, "network", "chassis"), *host = lmo_conf_str(conf, "worker", "host");
    if (chassis[0] && strcmp(chassis, host) != 0) {
        return lmo_fail(err, LMO_E_INVALID,
                        "%s: [network] chassis: must be '%s', the name of the host: orders name hosts", path, host);
    }
    return 0;
}

static void fill(const struct lmo_conf *conf, struct lmo_worker_config *cfg)
{
    LMO_COPY(cfg->listen, lmo_conf_str(conf, "worker", "listen"));
    LMO_COPY(cfg->state_dir, lmo_conf_str(conf, "worker", "state_dir"));
    LMO_COPY(cfg->log_file, lmo_conf_str(conf, "worker", "log_file"));
    LMO_COPY(cfg->tls.ca, lmo_conf_str(conf, "tls", "ca"));
    LMO_COPY(cfg->tls.crl, lmo_conf_str(conf, "tls", "crl"));
    LMO_COPY(cfg->tls.cert, lmo_conf_str(conf, "tls", "cert"));
    LMO_COPY(cfg->tls.key, lmo_conf_str(conf, "tls", "key"));
    LMO_COPY(cfg->permit_key, lmo_conf_str(conf, "tls", "permit_key"));
    struct lmo_host_facts *f = &cfg->facts;
    LMO_COPY(f->host, lmo_conf_str(conf, "worker", "host"));
    if (has_section(conf, "hypervisor")) {
        LMO_COPY(f->hypervisor, lmo_conf_str(conf, "hypervisor", "driver"));
    }
    if (has_section(conf, "network")) {
        LMO_COPY(f->network, lmo_conf_str(conf, "network", "driver"));
        LMO_COPY(f->network_fabric, lmo_conf_str(conf, "network", "fabric"));
    }
    if (has_section(conf, "fabric")) {
        LMO_COPY(f->fabric, lmo_conf_str(conf, "fabric", "driver"));
        LMO_COPY(f->fabric_name, lmo_conf_str(conf, "fabric", "name"));
    }
    if (has_section(conf, "volume")) {
        LMO_COPY(f->volume, lmo_conf_str(conf, "volume", "driver"));
        LMO_COPY(f->volume_service, lmo_conf_str(conf, "volume", "service"));
        LMO_COPY(f->volume_address, lmo_conf_str(conf, "volume", "address"));
    }
}

int lmo_worker_config_load(const char *path, struct lmo_conf **ret_conf, struct lmo_worker_config *ret_cfg,
                           enum lmo_log_level *ret_level, struct lmo_err *err)
{
    LMO_AUTO_CONF struct lmo_conf *conf = NULL;
    enum lmo_log_level level = LMO_LOG_INFO;
    int r = lmo_conf_load(path, keys, sizeof keys / sizeof keys[0], &conf, err);
    if (r == 0) {
        r = check(conf, path, &level, err);
    }
    if (r < 0) {
        return r;
    }
    struct lmo_worker_config cfg = {.drivers_open = drivers_open, .drivers_close = drivers_close, .drivers_arg = conf};
    fill(conf, &cfg);
    r = cfg.facts.hypervisor[0] ? read_peer_uri(conf, path, &cfg.facts, err) : 0;
    r = r < 0 ? r : read_links(conf, path, &cfg.facts, err);
    if (r < 0) {
        return r;
    }
    lmo_log_set_json(lmo_conf_bool(conf, "worker", "log_json"));
    *ret_cfg = cfg;
    *ret_level = level;
    *ret_conf = LMO_TAKE(conf);
    return 0;
}

void lmo_worker_config_print_keys(FILE *out)
{
    lmo_conf_print_keys(keys, sizeof keys / sizeof keys[0], out);
}
