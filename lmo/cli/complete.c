/* complete.c - what may stand at the end of a line, for the shells' completion; see words.h. */
#include "cli/commands.h"
#include "cli/objects.h"
#include "cli/words.h"

#include <string.h>

#define ASK_MS    1000 /* nobody waits longer for a completion */
#define WORDS_MAX 64

struct line {
    struct lmo_cli *cli;
    const char *words[WORDS_MAX];
    size_t count;
    const char *current; /* what is to be completed */
    const char *before;  /* put before each completion ("--to=", "host/") */
};

static void candidate(struct line *l, const char *word, const char *about)
{
    char safe_word[160], safe_about[120];
    if (strncmp(word, l->current, strlen(l->current)) != 0)
        return;
    lmo_format_safe(word, safe_word, sizeof safe_word);
    lmo_format_safe(about, safe_about, sizeof safe_about);
    fprintf(l->cli->out, "%s%s\t%s\n", l->before, safe_word, safe_about);
}

static void on_name(void *arg, const char *name, const char *about)
{
    candidate(arg, name, about);
}

static void fixed(struct line *l, const char *words)
{
    char word[64];
    while (words && *(words += strspn(words, " "))) {
        size_t len = strcspn(words, " ");
        snprintf(word, sizeof word, "%.*s", (int)len, words);
        candidate(l, word, "");
        words += len;
    }
}

/* The first words of all commands, or the second ones after `first`. */
static void command_words(struct line *l, const char *first)
{
    size_t first_len = first ? strlen(first) : 0;
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        const struct lmo_cli_command *c = &lmo_cli_commands[i];
        const char *space = strchr(c->name, ' ');
        if (first && space && (size_t)(space - c->name) == first_len && strncmp(c->name, first, first_len) == 0) {
            candidate(l, space + 1, c->summary);
        } else if (!first) {
            char word[32];
            size_t len = strcspn(c->name, " ");
            bool again = i > 0 && strncmp(lmo_cli_commands[i - 1].name, c->name, len) == 0 &&
                         strcspn(lmo_cli_commands[i - 1].name, " ") == len;
            snprintf(word, sizeof word, "%.*s", (int)len, c->name);
            if (!again)
                candidate(l, word, space ? "" : c->summary);
        }
    }
}

static void complete_word(struct line *l, enum lmo_word word, const char *words);

/* "host/" and, once that stands there, "host/hv1". */
static void objects(struct line *l)
{
    const char *slash = strchr(l->current, '/');
    char before[64];
    for (size_t i = 0; i < lmo_object_row_count; i++) {
        const struct lmo_object_row *row = &lmo_object_rows[i];
        size_t len = strlen(row->kind);
        snprintf(before, sizeof before, "%s/", row->kind);
        if (!slash) {
            candidate(l, before, "");
        } else if ((size_t)(slash - l->current) == len && strncmp(l->current, row->kind, len) == 0) {
            l->before = before;
            l->current = slash + 1;
            complete_word(l, row->word, NULL);
            l->before = "";
            return;
        }
    }
}

static void complete_word(struct line *l, enum lmo_word word, const char *words)
{
    fixed(l, words);
    switch (word) {
    case LMO_WORD_FILE: fputs(":file\n", l->cli->out); break;
    case LMO_WORD_DIR: fputs(":dir\n", l->cli->out); break;
    case LMO_WORD_COMMAND: command_words(l, NULL); break;
    case LMO_WORD_OBJECT: objects(l); break;
    case LMO_WORD_HOST:
    case LMO_WORD_VM:
    case LMO_WORD_MIGRATION:
    case LMO_WORD_DRAIN:
    case LMO_WORD_CONTEXT:
        if (lmo_words_list(l->cli, word, ASK_MS, on_name, l) < 0)
            return; /* silent: a shell's prompt is no place for messages */
        break;
    case LMO_WORD_ANY:
    case LMO_WORD_FIXED: break;
    }
}

static int option_named(const char *word, size_t len, lmo_option_mask accepted)
{
    for (int id = 0; id < LMO_OPT_COUNT; id++) {
        const struct lmo_option_row *row = &lmo_option_rows[id];
        if ((accepted >> id & 1) == 0)
            continue;
        if (len > 2 && strlen(row->long_name) == len - 2 && strncmp(row->long_name, word + 2, len - 2) == 0)
            return id;
        if (len == 2 && row->short_name && word[1] == row->short_name)
            return id;
    }
    return -1;
}

static void option_names(struct line *l, lmo_option_mask accepted, lmo_option_mask given)
{
    for (int id = 0; id < LMO_OPT_COUNT; id++) {
        char word[64];
        bool repeats = id == LMO_OPT_ADDRESS;
        if ((accepted >> id & 1) == 0 || ((given >> id & 1) && !repeats))
            continue;
        snprintf(word, sizeof word, "--%s", lmo_option_rows[id].long_name);
        candidate(l, word, lmo_option_rows[id].help);
    }
}

/* What was understood of the words before the current one. */
struct seen {
    const struct lmo_cli_command *command;
    const char *first; /* a first word that needs a second one */
    lmo_option_mask given;
    unsigned positional;
    int awaits; /* option whose argument the current word is; -1: none */
};

static lmo_option_mask accepted_by(const struct seen *s)
{
    return s->command ? s->command->options | LMO_OPTS_ALWAYS
                      : LMO_OPTS_CONNECTION | LMO_OPTS_ALWAYS | LMO_OPT_BIT(VERSION);
}

static bool is_group(const char *word)
{
    size_t len = strlen(word);
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        if (strncmp(lmo_cli_commands[i].name, word, len) == 0 && lmo_cli_commands[i].name[len] == ' ')
            return true;
    }
    return false;
}

/* A word that stands before the current one and is no option. False: no command begins so. */
static bool take_word(struct seen *s, const char *word)
{
    char name[128];
    if (s->command) {
        s->positional++;
        return true;
    }
    snprintf(name, sizeof name, "%.60s%s%.60s", s->first ? s->first : "", s->first ? " " : "", word);
    s->command = lmo_cli_command_find(name);
    if (s->command || s->first)
        return s->command != NULL;
    s->first = is_group(word) ? word : NULL;
    return s->first != NULL;
}

/* An option's value counts for asking the coordinator: the connection that is on the line. */
static void take_value(struct line *l, int id, const char *value)
{
    char problem[256];
    if ((LMO_OPTS_CONNECTION >> id & 1) &&
        !lmo_option_set(&l->cli->args, (enum lmo_option)id, value, problem, sizeof problem))
        return;
}

static bool understand(struct line *l, struct seen *s)
{
    for (size_t i = 0; i + 1 < l->count; i++) {
        const char *word = l->words[i], *equals = strchr(word, '=');
        if (word[0] != '-' || word[1] == '\0') {
            if (!take_word(s, word))
                return false;
            continue;
        }
        int id = option_named(word, equals ? (size_t)(equals - word) : strlen(word), accepted_by(s));
        if (id < 0)
            continue;
        s->given |= (lmo_option_mask)1 << id;
        if (!lmo_option_rows[id].argument)
            continue;
        if (equals) {
            take_value(l, id, equals + 1);
        } else if (i + 2 < l->count) {
            take_value(l, id, l->words[++i]);
        } else {
            s->awaits = id;
        }
    }
    return true;
}

/* bash takes "--to=hv" apart into three words; here it is two again, as if "--to hv" had been typed. */
static void take_words(struct line *l, int count, char **words)
{
    for (int i = 0; i < count && l->count < WORDS_MAX; i++) {
        bool equals = strcmp(words[i], "=") == 0 && l->count > 0 && l->words[l->count - 1][0] == '-';
        if (equals && i + 1 == count)
            l->words[l->count++] = "";
        else if (!equals)
            l->words[l->count++] = words[i];
    }
}

int lmo_cli_complete(struct lmo_cli *cli, int count, char **words)
{
    struct line l = {.cli = cli, .before = ""};
    struct seen s = {.awaits = -1};
    const char *choice = NULL;
    take_words(&l, count, words);
    if (l.count == 0 || !understand(&l, &s))
        return 0;
    l.current = l.words[l.count - 1];
    const char *equals = l.current[0] == '-' ? strchr(l.current, '=') : NULL;
    char before[80];
    if (equals) {
        s.awaits = option_named(l.current, (size_t)(equals - l.current), accepted_by(&s));
        snprintf(before, sizeof before, "%.*s", (int)(equals + 1 - l.current), l.current);
        l.before = before;
        l.current = equals + 1;
    }
    if (s.awaits >= 0) {
        enum lmo_word word = lmo_word_of_option((enum lmo_option)s.awaits, &choice);
        complete_word(&l, word, choice);
    } else if (!equals && l.current[0] == '-') {
        option_names(&l, accepted_by(&s), s.given);
    } else if (!s.command) {
        command_words(&l, s.first);
    } else if (s.positional < s.command->max) {
        enum lmo_word word = lmo_word_of_argument(s.command, s.positional, &choice);
        complete_word(&l, word, choice);
    }
    return 0;
}
