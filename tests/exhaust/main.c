/* main.c - runs the exhaustive suites: everything that can be enumerated is enumerated. */
#include <check.h>
#include <stdlib.h>

Suite *phases_suite(void);
Suite *cutover_suite(void);
Suite *drains_suite(void);

int main(void)
{
    SRunner *r = srunner_create(phases_suite());
    srunner_add_suite(r, cutover_suite());
    srunner_add_suite(r, drains_suite());
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
