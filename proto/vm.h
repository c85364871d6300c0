/* vm.h - guests, volumes, ports and progress as JSON; shared by ops, observations, the store and the REST API. */
#ifndef LMO_PROTO_VM_H
#define LMO_PROTO_VM_H

#include "base/err.h"
#include "base/types.h"

#include <jansson.h>

/* Encoders return a new reference, NULL only without memory. Decoders name the field in *err. */
json_t *lmo_volume_to_json(const struct lmo_volume *v);
int lmo_volume_from_json(const json_t *j, struct lmo_volume *ret, struct lmo_err *err) LMO_MUST_CHECK;
json_t *lmo_port_to_json(const struct lmo_port *p);
int lmo_port_from_json(const json_t *j, struct lmo_port *ret, struct lmo_err *err) LMO_MUST_CHECK;
json_t *lmo_vm_facts_to_json(const struct lmo_vm_facts *f);
int lmo_vm_facts_from_json(const json_t *j, struct lmo_vm_facts *ret, struct lmo_err *err) LMO_MUST_CHECK;
json_t *lmo_progress_to_json(const struct lmo_progress *p);
int lmo_progress_from_json(const json_t *j, struct lmo_progress *ret, struct lmo_err *err) LMO_MUST_CHECK;

#endif
