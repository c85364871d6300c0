/* copy.c - which parts of a record mean something, and copying only those.
 *
 * A record is 39 KiB of limits; what lies beyond the counts of its three arrays is nearly all of it. */
#include "core/migration.h"

#include <stddef.h>
#include <string.h>

_Static_assert(offsetof(struct lmo_migration, vm.volume_count) < offsetof(struct lmo_migration, vm.volumes) &&
                   offsetof(struct lmo_migration, vm.port_count) < offsetof(struct lmo_migration, vm.volumes) &&
                   offsetof(struct lmo_migration, vm.volumes) < offsetof(struct lmo_migration, vm.ports) &&
                   offsetof(struct lmo_migration, vm.ports) < offsetof(struct lmo_migration, tasks) &&
                   offsetof(struct lmo_migration, task_count) < offsetof(struct lmo_migration, tasks),
               "the arrays stand in this order, behind their counts");

void lmo_migration_extents(const struct lmo_migration *m, struct lmo_extent ret[LMO_EXTENTS])
{
    const struct {
        size_t at, element;
        unsigned used, max;
    } arrays[LMO_EXTENTS - 1] = {
        {offsetof(struct lmo_migration, vm.volumes), sizeof m->vm.volumes[0], m->vm.volume_count, LMO_VOLUMES_MAX},
        {offsetof(struct lmo_migration, vm.ports), sizeof m->vm.ports[0], m->vm.port_count, LMO_PORTS_MAX},
        {offsetof(struct lmo_migration, tasks), sizeof m->tasks[0], m->task_count, LMO_TASKS_MAX},
    };
    size_t at = 0;
    for (unsigned i = 0; i < LMO_EXTENTS - 1; i++) {
        ret[i] = (struct lmo_extent){at, arrays[i].at + arrays[i].used * arrays[i].element - at};
        at = arrays[i].at + arrays[i].max * arrays[i].element;
    }
    ret[LMO_EXTENTS - 1] = (struct lmo_extent){at, sizeof *m - at};
}

void lmo_migration_copy(struct lmo_migration *to, const struct lmo_migration *from)
{
    struct lmo_extent extents[LMO_EXTENTS];
    lmo_migration_extents(from, extents);
    for (unsigned i = 0; i < LMO_EXTENTS; i++) {
        memcpy((char *)to + extents[i].at, (const char *)from + extents[i].at, extents[i].size);
    }
}
