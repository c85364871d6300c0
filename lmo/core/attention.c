/* attention.c - see attention.h. */
#include "core/attention.h"

#include "core/migration.h"

#include <stdarg.h>
#include <stdio.h>

static void add(char lines[][LMO_TEXT_MAX], unsigned *count, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void add(char lines[][LMO_TEXT_MAX], unsigned *count, const char *fmt, ...)
{
    if (*count == LMO_ATTENTION_LINES) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(lines[(*count)++], LMO_TEXT_MAX, fmt, ap);
    va_end(ap);
}

static void allow(struct lmo_attention *a, const char *effect, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void allow(struct lmo_attention *a, const char *effect, const char *fmt, ...)
{
    if (a->safe_count == LMO_ATTENTION_LINES) {
        return;
    }
    struct lmo_attention_command *c = &a->safe[a->safe_count++];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(c->command, sizeof c->command, fmt, ap);
    va_end(ap);
    (void)snprintf(c->effect, sizeof c->effect, "%s", effect);
}

static void describe_known(const struct lmo_migration *m, struct lmo_attention *a)
{
    const struct lmo_cutover *c = &m->cutover;
    if (c->suspended_us == 0) {
        add(a->known, &a->known_count, "no pause of the guest at %s by this migration was reported", m->source);
    } else {
        add(a->known, &a->known_count, "the guest was paused at %s by the switch-over", m->source);
    }
    if (c->loaded_us != 0) {
        add(a->known, &a->known_count, "its whole state was loaded at %s, paused", m->destination);
    }
    if (c->committed) {
        add(a->known, &a->known_count, "%s has committed on the source's word '%s': it only goes forward there",
            m->destination, c->freeze_answer);
    }
    if (c->fenced_us != 0) {
        add(a->known, &a->known_count, "the source is fenced off from %u volume(s)", m->vm.volume_count);
    }
    if (c->resumed) {
        add(a->known, &a->known_count, "the guest is at %s; what is left is to clear the source away", m->destination);
    }
    if (m->destination_discarded) {
        add(a->known, &a->known_count, "nothing is at %s any more, and nothing will run there for this migration",
            m->destination);
    }
    if (m->job_ended) {
        add(a->known, &a->known_count, "the hypervisor's job has ended: it returned %s",
            m->job_call_ok ? "success" : "an error");
    }
}

static void describe_unknown(const struct lmo_migration *m, struct lmo_attention *a)
{
    const struct lmo_cutover *c = &m->cutover;
    unsigned owed = 0;
    for (unsigned i = 0; i < m->task_count; i++) {
        if (m->tasks[i].state == LMO_TASK_SENT) {
            add(a->unknown, &a->unknown_count, "whether %s was carried out at %s", lmo_op_info(m->tasks[i].kind)->text,
                lmo_task_host(m, &m->tasks[i]));
        }
    }
    if (!c->resumed && !m->destination_discarded && c->loaded_us != 0 && !c->committed) {
        add(a->unknown, &a->unknown_count, "whether the guest at %s ran on after its pause", m->source);
    }
    if (c->committed && !c->resumed) {
        add(a->unknown, &a->unknown_count, "whether the guest runs at %s by now", m->destination);
    }
    if (c->committed && c->fenced_us == 0) {
        add(a->unknown, &a->unknown_count, "which volumes the source is fenced off from");
    }
    for (unsigned i = 0; i < m->resource_count; i++) {
        owed += (m->resources[i].intended & ~m->resources[i].undone) != 0 && !c->resumed;
    }
    if (owed > 0) {
        add(a->unknown, &a->unknown_count,
            "what is left of %u kind(s) of resources that this migration made (shown with it)", owed);
    }
    if (m->waiting_for[0]) {
        add(a->unknown, &a->unknown_count, "%.250s", m->waiting_for);
    }
}

void lmo_attention_describe(const struct lmo_migration *m, struct lmo_attention *ret)
{
    *ret = (struct lmo_attention){0};
    describe_known(m, ret);
    describe_unknown(m, ret);
    allow(ret, "looks at both hosts and says what is there now; changes nothing", "lmo doctor");
    bool again =
        m->failed_in == LMO_PHASE_CUTOVER || m->failed_in == LMO_PHASE_FINALIZE || m->failed_in == LMO_PHASE_ROLLBACK;
    if (again) {
        allow(ret, "goes on where it stopped, with a fresh deadline", "lmo migration resolve %s retry --reason TEXT",
              m->id);
    }
    if (!m->cutover.resumed && !m->cutover.committed) {
        allow(ret, "gives the guest back to the source; refused unless the destination's copy is seen to be absent",
              "lmo migration resolve %s guest-at-source --reason TEXT", m->id);
    }
    if (m->cutover.loaded_us != 0 || m->cutover.resumed) {
        allow(ret, "makes the destination's copy the guest; refused while the source answers or is seen to run",
              "lmo migration resolve %s guest-at-destination --reason TEXT", m->id);
    }
    allow(ret, "touches nothing and closes the record, for a guest that you have taken into your own hands",
          "lmo migration resolve %s abandon --reason TEXT", m->id);
}
