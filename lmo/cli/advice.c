/* advice.c - see advice.h. */
#include "cli/advice.h"
#include "cli/commands.h"
#include "cli/suggest.h"
#include "cli/words.h"

#include <string.h>

#define ASK_MS 1000

/* By code, as base/err.h and docs have them; a code of this table that a coordinator never sends costs nothing. */
static const struct {
    const char *code, *next;
} rows[] = {
    {"ok", "Nothing is wrong."},
    {"invalid", "Nothing was changed. Mend the value that is named; `lmo help COMMAND` says what it may be."},
    {"unauthenticated",
     "Check --cert and --key, or the token: expired, revoked, or of another CA? See `lmo pki list`."},
    {"forbidden", "Use a certificate of role operator or control-plane."},
    {"not_found", "Check the name: `lmo host list`, `lmo vm list` and `lmo migration list` show what there is."},
    {"method_not_allowed",
     "The coordinator does not know this request: is it older than this program? See `lmo version`."},
    {"conflict",
     "Nothing was changed. Look at how it stands now (`lmo migration list`, `lmo host list`), then decide anew."},
    {"precondition_failed", "Somebody else changed it meanwhile: look at it again, then repeat the command."},
    {"gone", "It existed and is not kept any more; ask for something newer."},
    {"stale_epoch", "A newer migration of this guest has begun: `lmo migration list --vm VM` shows it."},
    {"too_large", "Ask for less at once: --limit, or a narrower filter."},
    {"unsupported",
     "This cannot be done with these hosts or this guest; `lmo host show HOST` says what a host is able to do."},
    {"refused", "Nothing was changed. The reason is above; repeating the same command will be refused again."},
    {"limit", "Nothing was changed; try again in a moment."},
    {"unavailable", "Nothing was changed; try again in a moment. `lmo host list` shows which hosts answer."},
    {"busy", "Nothing was changed; try again in a moment."},
    {"timeout", "It may have been done: look before you repeat it."},
    {"unknown_outcome",
     "It may have been done: look before you repeat it. `lmo doctor` compares records with what is seen."},
    {"io", "The coordinator's machine could not read or write: look at its journal (journalctl -u lmod) and its disk."},
    {"no_memory", "The coordinator is short of memory: try again in a moment, and look at its machine."},
    {"no_space", "The coordinator's disk is full: make room there; nothing is acknowledged until then."},
    {"corrupt",
     "A stored record cannot be read: run `lmo doctor`, and keep a copy of the coordinator's state directory."},
    {"cancelled", "It was cancelled; `lmo migration show ID` says by whom."},
    {"internal", "That is a fault of LMO: please report it with the coordinator's journal of this moment."},
    {"not_converging",
     "Wait for the guest to get calmer, or allow more: --max-downtime, --allow-throttle, --on-timeout force; "
     "--prediction off starts it all the same."},
    {"stale_term", "Another coordinator has taken over: give its address with --url or `lmo context set`."},
};

static const char *by_status(unsigned status)
{
    if (status == 401 || status == 403)
        return "Check who you are: --cert and --key, or the token.";
    if (status == 404)
        return "Check the name, and whether the coordinator is as new as this program.";
    if (status == 429 || status == 503)
        return "Nothing was changed; the coordinator asks for patience: try again in a moment.";
    if (status >= 500)
        return "It may have been done: look before you repeat it, and at the coordinator's journal.";
    return "Nothing was changed. Mend what is named, then repeat the command.";
}

const char *lmo_advice(const struct lmo_cli_command *command, const char *code, unsigned status)
{
    if (strcmp(code, "not_found") == 0 && command && command->not_found)
        return command->not_found;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].code, code) == 0)
            return rows[i].next;
    }
    return by_status(status);
}

/* ------------------------------------------------------------------ names */

struct search {
    struct lmo_suggest near;
    bool exists;
};

static void compare(void *arg, const char *name, const char *about)
{
    struct search *s = arg;
    (void)about;
    s->exists |= strcmp(name, s->near.word) == 0;
    lmo_suggest_add(&s->near, name);
}

static void advise(struct lmo_cli *cli, enum lmo_word kind, const char *word)
{
    struct search s = {.near = {.word = word}};
    char text[LMO_SUGGEST_TEXT_MAX];
    if ((kind != LMO_WORD_HOST && kind != LMO_WORD_VM) || !word || *word == '\0')
        return;
    if (lmo_words_list(cli, kind, ASK_MS, compare, &s) < 0 || s.exists || s.near.count == 0)
        return;
    lmo_cli_message(cli, "there is no %s \"%.63s\".%s", kind == LMO_WORD_HOST ? "host" : "guest", word,
                    lmo_suggest_text(&s.near, "", text));
}

void lmo_advise_names(struct lmo_cli *cli)
{
    const char *words = NULL;
    if (!cli->err_style.tty || !cli->command)
        return;
    for (unsigned i = 0; i < cli->args.count; i++)
        advise(cli, lmo_word_of_argument(cli->command, i, &words), cli->args.positional[i]);
    for (int id = 0; id < LMO_OPT_COUNT; id++) {
        if (cli->args.given >> id & 1)
            advise(cli, lmo_word_of_option((enum lmo_option)id, &words), cli->args.text[id]);
    }
}
