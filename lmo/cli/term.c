/* term.c - see term.h. */
#include "cli/term.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define ENTER    "\033[?1049h\033[?25l\033[?7l" /* the other screen, no cursor, no wrapping */
#define LEAVE    "\033[0m\033[?7h\033[?25h\033[?1049l"
#define STUCK_MS 2000 /* a terminal that takes nothing for so long (Ctrl-S) loses a picture, not the program */

static volatile sig_atomic_t entered;
static struct termios before;
static int term_in, term_out;

static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};

void lmo_term_leave(void)
{
    if (!entered)
        return;
    entered = 0;
    ssize_t n = write(term_out, LEAVE, sizeof LEAVE - 1);
    (void)!n; /* nobody is left to be told */
    tcsetattr(term_in, TCSANOW, &before);
}

static void on_fatal(int number)
{
    lmo_term_leave();
    raise(number); /* once more, with the default disposition that SA_RESETHAND has put back */
}

static void guard(void)
{
    static bool guarded;
    if (guarded)
        return;
    guarded = true;
    atexit(lmo_term_leave);
    struct sigaction sa = {.sa_handler = on_fatal, .sa_flags = (int)SA_RESETHAND};
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        sigaction(fatal[i], &sa, NULL);
}

int lmo_term_enter(int in, int out, struct lmo_err *err)
{
    if (tcgetattr(in, &before) < 0 || !isatty(out))
        return lmo_fail(err, LMO_E_UNSUPPORTED, "not a terminal");
    struct termios raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO); /* ISIG stays: Ctrl-C and Ctrl-Z mean what they mean everywhere */
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    guard();
    term_in = in;
    term_out = out;
    entered = 1;
    if (tcsetattr(in, TCSADRAIN, &raw) < 0 || lmo_term_write(out, ENTER, sizeof ENTER - 1) < 0) {
        lmo_term_leave();
        return lmo_fail(err, LMO_E_IO, "the terminal cannot be set up: %s", strerror(errno));
    }
    return 0;
}

void lmo_term_size(int out, unsigned *ret_columns, unsigned *ret_rows)
{
    struct winsize size = {0};
    bool known = ioctl(out, TIOCGWINSZ, &size) == 0;
    *ret_columns = known && size.ws_col > 0 ? size.ws_col : 80;
    *ret_rows = known && size.ws_row > 0 ? size.ws_row : 24;
}

int lmo_term_suspend(int in, int out, struct lmo_err *err)
{
    sigset_t stop, old;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTSTP);
    lmo_term_leave();
    raise(SIGTSTP); /* pending while it is blocked; stops us at the next line, until SIGCONT */
    sigprocmask(SIG_UNBLOCK, &stop, &old);
    sigprocmask(SIG_SETMASK, &old, NULL);
    return lmo_term_enter(in, out, err);
}

int lmo_term_write(int out, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(out, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = out, .events = POLLOUT};
            if (poll(&p, 1, STUCK_MS) > 0)
                continue;
        }
        if (n < 0)
            return LMO_E_IO;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* ------------------------------------------------------------------ keys */

static const struct {
    const char *sequence; /* after ESC */
    enum lmo_key key;
} sequences[] = {
    {"[A", LMO_KEY_UP},       {"OA", LMO_KEY_UP},         {"[B", LMO_KEY_DOWN}, {"OB", LMO_KEY_DOWN},
    {"[5~", LMO_KEY_PAGE_UP}, {"[6~", LMO_KEY_PAGE_DOWN}, {"[H", LMO_KEY_HOME}, {"OH", LMO_KEY_HOME},
    {"[1~", LMO_KEY_HOME},    {"[F", LMO_KEY_END},        {"OF", LMO_KEY_END},  {"[4~", LMO_KEY_END},
};

static enum lmo_key escape_sequence(const char *data, size_t len, size_t *used)
{
    for (size_t i = 0; i < sizeof sequences / sizeof sequences[0]; i++) {
        size_t n = strlen(sequences[i].sequence);
        if (len >= n && memcmp(data, sequences[i].sequence, n) == 0) {
            *used += n;
            return sequences[i].key;
        }
    }
    if (len == 0 || (data[0] != '[' && data[0] != 'O'))
        return LMO_KEY_ESCAPE;
    size_t n = 1; /* some other key's: up to its last byte */
    while (n < len && !(data[n] >= 0x40 && data[n] <= 0x7e))
        n++;
    *used += n < len ? n + 1 : n;
    return LMO_KEY_OTHER;
}

enum lmo_key lmo_term_key(const char *data, size_t len, size_t *used, char ret_text[8])
{
    if (*used >= len)
        return LMO_KEY_NONE;
    unsigned char c = (unsigned char)data[(*used)++];
    if (c == 0x1b)
        return escape_sequence(data + *used, len - *used, used);
    if (c == '\r' || c == '\n')
        return LMO_KEY_ENTER;
    if (c == 0x7f || c == '\b')
        return LMO_KEY_BACKSPACE;
    if (c < 0x20)
        return LMO_KEY_OTHER;
    size_t more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0, n = 0;
    ret_text[n++] = (char)c;
    for (; more > 0 && *used < len && ((unsigned char)data[*used] & 0xc0) == 0x80; more--)
        ret_text[n++] = data[(*used)++];
    ret_text[n] = '\0';
    return LMO_KEY_TEXT;
}
