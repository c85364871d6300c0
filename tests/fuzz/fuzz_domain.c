/* A guest's XML, as a hypervisor gives it or another host sends it. */
#include "fuzz.h"

#include "workers/drivers/hypervisor_libvirt_xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lmo_vm_facts vm;
    static struct lmo_hv_disk_map map;
    struct lmo_domxml_incoming in = {0};
    struct lmo_domxml_status status = {0};
    struct lmo_err err = {0};
    char *text = fuzz_text(data, size), *again = NULL;
    memset(&vm, 0, sizeof vm);
    memset(&map, 0, sizeof map);
    (void)!lmo_domxml_facts(text, &vm, &err);
    if (lmo_domxml_exports(text, &map, &err) == 0 && lmo_domxml_rewrite(text, &map, false, &again, &err) == 0) {
        free(again);
    }
    if (lmo_domxml_incoming(text, &in, &err) == 0) {
        lmo_domxml_incoming_done(&in);
    }
    (void)!lmo_domxml_status(text, &status, &err);
    (void)lmo_domxml_local_state(text);
    free(text);
    return 0;
}
