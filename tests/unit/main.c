/* main.c - runs every suite: `unit-tests [suite...]`. Each test runs in a process of its own (CK_FORK=no: in this one).
 * Each suite closes with libcheck's own line and its duration; tests/tally adds them up.
 *
 * Most tests wait for something most of the time, so several suites run at once, each in a process whose output is
 * shown in one piece at its end. A single suite, or LMO_TEST_JOBS=1, runs in this process. */
#include "suites.h"
#include "base/clock.h"
#include "base/log.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool wanted(const char *name, int argc, char **argv)
{
    bool found = argc < 2;
    for (int i = 1; i < argc && !found; i++)
        found = strcmp(argv[i], name) == 0;
    return found;
}

struct suite {
    const char *name;
    Suite *(*make)(void);
    FILE *output;
    pid_t pid;
};

/* Runs one suite here; true if all of it passed. */
static bool run(const struct suite *suite)
{
    uint64_t before = lmo_now_ms();
    SRunner *runner = srunner_create(suite->make());
    srunner_run_all(runner, CK_ENV);
    bool good = srunner_ntests_failed(runner) == 0 && srunner_ntests_run(runner) > 0;
    srunner_free(runner);
    printf("    %s: %llu ms\n", suite->name, (unsigned long long)(lmo_now_ms() - before));
    fflush(stdout);
    return good;
}

static void start(struct suite *suite)
{
    suite->output = tmpfile();
    fflush(NULL);
    suite->pid = suite->output ? fork() : -1;
    if (suite->pid == 0) {
        dup2(fileno(suite->output), STDOUT_FILENO);
        dup2(fileno(suite->output), STDERR_FILENO);
        exit(run(suite) ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    if (suite->pid < 0) {
        perror("cannot start a suite");
        exit(EXIT_FAILURE);
    }
}

/* Waits for any suite, shows what it said; true if it passed. */
static bool finish_one(struct suite *suites, size_t count)
{
    int status;
    pid_t pid = wait(&status);
    for (size_t i = 0; i < count; i++) {
        if (pid <= 0 || suites[i].pid != pid)
            continue;
        char text[4096];
        size_t n;
        rewind(suites[i].output);
        while ((n = fread(text, 1, sizeof text, suites[i].output)) > 0)
            fwrite(text, 1, n, stdout);
        fclose(suites[i].output);
        bool good = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
        if (!good)
            printf("    FAILED suite %s\n", suites[i].name);
        fflush(stdout);
        return good;
    }
    return pid > 0; /* a stranger's end does not matter; no child left would be a bug of this file */
}

int main(int argc, char **argv)
{
    /* Expected failures would fill the screen; LMO_TEST_LOG=debug shows everything. Failed assertions always show. */
    enum lmo_log_level level;
    const char *name = getenv("LMO_TEST_LOG"), *jobs = getenv("LMO_TEST_JOBS");
    lmo_log_set_level(name && lmo_log_level_from_name(name, &level) == 0 ? level
                                                                         : (enum lmo_log_level)(LMO_LOG_ERROR + 1));
    signal(SIGPIPE, SIG_IGN);

    struct suite suites[] = {
#define X(suite) {.name = #suite, .make = suite##_suite},
        LMO_SUITES(X)
#undef X
    };
    size_t count = 0;
    for (size_t i = 0; i < sizeof suites / sizeof suites[0]; i++) {
        if (suites[i].make && wanted(suites[i].name, argc, argv))
            suites[count++] = suites[i];
    }
    size_t at_once = jobs ? strtoul(jobs, NULL, 10) : 6, running = 0;
    bool good = count > 0;
    for (size_t i = 0; i < count && (at_once <= 1 || count == 1); i++)
        good = run(&suites[i]) && good;
    for (size_t i = 0; i < count && at_once > 1 && count > 1; i++) {
        start(&suites[i]);
        if (++running == at_once) {
            good = finish_one(suites, i + 1) && good;
            running--;
        }
    }
    while (running-- > 0)
        good = finish_one(suites, count) && good;
    if (count == 0)
        fprintf(stderr, "no such suite\n");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
