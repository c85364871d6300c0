/* seat.c - a worker's configuration with the world's drivers. */
#include "fakes/internal.h"

static int seat_open(void *arg, lmo_hv_event_fn *on_event, void *event_arg, struct lmo_worker_drivers *ret,
                     struct lmo_err *err)
{
    (void)err;
    struct fake_seat *seat = arg;
    struct lmo_worker_drivers d = {0};
    if (seat->host >= 0) {
        seat->on_event = on_event;
        seat->event_arg = event_arg;
        d.hypervisor = fake_hypervisor_new(seat);
        d.network = fake_network_new(seat->world);
        fake_seat_open(seat);
    }
    if (seat->services) {
        d.volume = fake_volume_new(seat->world);
        d.fabric = fake_fabric_new(seat->world);
    }
    *ret = d;
    return 0;
}

static void seat_close(void *arg, struct lmo_worker_drivers *d)
{
    (void)arg;
    if (d->hypervisor) {
        d->hypervisor->ops->close(d->hypervisor);
    }
    if (d->network) {
        d->network->ops->close(d->network);
    }
    if (d->volume) {
        d->volume->ops->close(d->volume);
    }
    if (d->fabric) {
        d->fabric->ops->close(d->fabric);
    }
}

void fake_seat(struct fake_seat *seat, struct fake_world *w, int host, bool services, struct lmo_worker_config *cfg)
{
    *seat = (struct fake_seat){.world = w, .host = host, .services = services};
    cfg->drivers_open = seat_open;
    cfg->drivers_close = seat_close;
    cfg->drivers_arg = seat;
}

void fake_facts(const struct fake_world *w, unsigned host, bool services, struct lmo_host_facts *ret)
{
    unsigned rack = w->cfg.rack ? host / w->cfg.rack : 0;
    *ret = (struct lmo_host_facts){0};
    LMO_COPY(ret->host, w->hosts[host].name);
    LMO_COPY(ret->hypervisor, "fake");
    LMO_COPY(ret->network, "fake");
    snprintf(ret->peer_uri, sizeof ret->peer_uri, "fake://%s", ret->host);
    LMO_COPY(ret->links[0].name, "migration"); /* what is sent there leaves this machine by that address */
    LMO_COPY(ret->links[0].address, "127.0.0.1");
    ret->link_count = 1;
    snprintf(ret->network_fabric, sizeof ret->network_fabric, "rack%u", rack);
    if (services) {
        LMO_COPY(ret->fabric, "fake");
        LMO_COPY(ret->volume, "fake");
        snprintf(ret->fabric_name, sizeof ret->fabric_name, "rack%u", rack);
        snprintf(ret->volume_service, sizeof ret->volume_service, "rack%u", rack);
        snprintf(ret->volume_address, sizeof ret->volume_address, "10.0.%u.9:10809", rack);
    }
}
