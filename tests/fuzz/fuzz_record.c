/* Records as the store has them: what is taken is written again as something that means the same. */
#include "fuzz.h"

#include "engine/record_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lmo_migration first, second;
    struct lmo_err err = {0};
    char *text = fuzz_text(data, size), *again = NULL, *third = NULL;
    if (lmo_record_decode(text, size, &first, &err) == 0) {
        (void)lmo_migration_broken(&first);
        lmo_assert(lmo_record_encode(&first, &again, &err) == 0);
        lmo_assert(lmo_record_decode(again, strlen(again), &second, &err) == 0);
        lmo_assert(lmo_record_encode(&second, &third, &err) == 0 && strcmp(again, third) == 0);
        if (!lmo_migration_broken(&first)) {
            json_decref(lmo_migration_to_rest(&first));
            json_decref(lmo_migration_summary(&first));
        }
    }
    free(again);
    free(third);
    free(text);
    return 0;
}
