/* main.c - the program `lmo`: the real streams and environment, everything else is lmo_cli_run. */
#include "cli/cli.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static struct lmo_style style_of(int fd)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    struct winsize size = {0};
    bool terminal = isatty(fd) == 1;
    struct lmo_style s = {.tty = terminal && term && strcmp(term, "dumb") != 0};
    s.color = s.tty && !(no_color && *no_color); /* no-color.org: set and not empty */
    if (terminal && ioctl(fd, TIOCGWINSZ, &size) == 0)
        s.width = size.ws_col;
    return s;
}

static const char *environment(const char *name)
{
    return getenv(name);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a connection that breaks is an error with a message, not an end without one */
    struct lmo_cli cli = {.out = stdout,
                          .err = stderr,
                          .out_style = style_of(STDOUT_FILENO),
                          .err_style = style_of(STDERR_FILENO),
                          .env = environment};
    return lmo_cli_run(&cli, argc, argv);
}
