/* replay_workers.c - the two cutover machines of workers/logic, event by event (see replay.c). */
#include "tests/model/replay.h"

#include "workers/logic/destination.h"
#include "workers/logic/source.h"

#define NOW_MS INT64_C(1000000)

/* ------------------------------------------------------------------ the source's worker */

static struct lmo_src src, src_disk;
static uint64_t src_seen; /* the highest epoch; lmo_worker_check_epoch() */

static const enum lmo_src_stage src_stages[] = {
    [S_IDLE] = LMO_SRC_IDLE,         [S_JOB] = LMO_SRC_JOB,         [S_SUSPENDED] = LMO_SRC_SUSPENDED,
    [S_FREEZING] = LMO_SRC_FREEZING, [S_FROZEN] = LMO_SRC_FROZEN,   [S_GONE] = LMO_SRC_GONE,
    [S_RAN] = LMO_SRC_RAN,           [S_KILLING] = LMO_SRC_KILLING, [S_KILLED] = LMO_SRC_KILLED,
    [S_REVIVING] = LMO_SRC_REVIVING, [S_REVIVED] = LMO_SRC_REVIVED,
};
_Static_assert(COUNT(src_stages) == LMO_SRC_STAGE_COUNT, "the model does not know every stage of the source");

static const enum lmo_src_event_kind src_events[] = {
    [SE_JOB_STARTED] = LMO_SRCE_JOB_STARTED,
    [SE_SUSPENDED] = LMO_SRCE_SUSPENDED,
    [SE_RESUMED] = LMO_SRCE_RESUMED,
    [SE_STOPPED] = LMO_SRCE_STOPPED,
    [SE_JOB_END] = LMO_SRCE_JOB_END,
    [SE_FREEZE] = LMO_SRCE_FREEZE,
    [SE_RESULT] = LMO_SRCE_FREEZE_RESULT,
    [SE_KILL] = LMO_SRCE_KILL,
    [SE_KILL_OK] = LMO_SRCE_KILL_OK,
    [SE_KILL_FAILED] = LMO_SRCE_KILL_FAILED,
    [SE_REVIVE] = LMO_SRCE_REVIVE,
    [SE_REVIVE_OK] = LMO_SRCE_REVIVE_OK,
    [SE_REVIVE_FAILED] = LMO_SRCE_REVIVE_FAILED,
    [SE_RESTARTED] = LMO_SRCE_RESTARTED,
    [SE_TIMER] = LMO_SRCE_TIMER,
    [SE_CRASH_TOLD] = LMO_SRCE_RESTARTED,
};

static void src_load(void)
{
    src = (struct lmo_src){.epoch = src_disk.epoch,
                           .freeze_epoch = src_disk.freeze_epoch,
                           .stage = src_disk.stage,
                           .job_running = src_disk.job_running,
                           .gate_open = src_disk.gate_open,
                           .final_paused = src_disk.final_paused,
                           .frozen_us = src_disk.frozen_us,
                           .freeze_us = src_disk.freeze_us};
}

static bool src_durable_differs(void)
{
    return src.epoch != src_disk.epoch || src.freeze_epoch != src_disk.freeze_epoch || src.stage != src_disk.stage ||
           src.job_running != src_disk.job_running || src.frozen_us != src_disk.frozen_us;
}

static int src_actions(const struct lmo_src_actions *a)
{
    int code = (a->notify_suspended ? SA_NOTIFY : 0) | (a->freeze ? SA_FREEZE : 0) | (a->kill ? SA_KILL : 0) |
               (a->revive ? SA_REVIVE : 0) | (a->kill_done ? SA_KILL_DONE : 0) | (a->revive_done ? SA_REVIVE_DONE : 0) |
               (a->answer ? SA_ANSWER + SA_TOLD * replay_answer_code(a->told) : 0) |
               SA_REFUSED * replay_refusal(a->refused);
    for (unsigned i = 0; i < a->report_count; i++) {
        enum lmo_worker_event_kind k = a->report[i].kind;
        code |= k == LMO_WEV_SUSPENDED        ? SR_SUSPENDED
                : k == LMO_WEV_SOURCE_RESUMED ? SR_RESUMED
                : k == LMO_WEV_SOURCE_GONE    ? SR_GONE
                : k == LMO_WEV_JOB_END        ? SR_JOB_END
                                              : 1 << 30; /* STUCK: the model says that it cannot be */
    }
    return code;
}

static void src_step(struct lmo_src_event *ev, struct lmo_src_actions *ret)
{
    struct lmo_src before = src;
    ev->now_ms = NOW_MS;
    ev->now_us = 1;
    lmo_src_step(&before, ev, &src, ret);
    const char *broken = lmo_src_broken(&before, &src, ret);
    if (broken) {
        replay_mismatch("%s", broken);
    }
}

/* False: the worker refuses it before its machine is asked, or nothing is asked. */
static bool src_event(struct lmo_src_event *ev, struct lmo_src_actions *a)
{
    static const enum lmo_run_state states[] = {LMO_RUN_PAUSED_MIGRATION, LMO_RUN_RUNNING, LMO_RUN_SHUT_OFF};
    static const uint64_t epochs[] = {0, EPOCH_OLD, EPOCH_PERMIT, EPOCH_RAISED};
    const struct replay_label *l = &replay_at.label;
    switch (l->event) {
    case SE_JOB_STARTED: ev->epoch = src_seen = EPOCH_PERMIT; break;
    case SE_JOB_END: ev->ok = l->argument; break;
    case SE_FREEZE:
        ev->epoch = EPOCH_PERMIT;
        if (src_seen > EPOCH_PERMIT) {
            a->refused = LMO_E_STALE_EPOCH;
            return false;
        }
        break;
    case SE_RESULT:
        ev->answer = replay_answers[l->argument == LIVES_ON ? A_UNKNOWN : l->argument];
        ev->state = l->argument == LIVES_ON ? LMO_RUN_PAUSED_MIGRATION : LMO_RUN_UNKNOWN;
        break;
    case SE_REVIVE:
        ev->epoch = epochs[l->argument];
        src_seen = ev->epoch > src_seen ? ev->epoch : src_seen;
        break;
    case SE_CRASH_TOLD: {
        struct lmo_src_event told = {.kind = LMO_SRCE_SUSPENDED};
        struct lmo_src_actions ta;
        src_step(&told, &ta);
        if (!ta.notify_suspended || !ta.persist) {
            replay_mismatch("the pause is not told, or told without being journaled afterwards");
        }
        src_load();
        ev->state = states[l->argument];
        break;
    }
    case SE_RESTARTED:
        if (l->argument >= 8) {
            return false; /* observed anew while a call is under way: cutover_source.c does not tell the machine */
        }
        if (l->argument < 4) {
            src_load();
        }
        ev->state = states[l->argument % 4];
        break;
    case SE_TIMER: src.retry_ms = NOW_MS; break;
    default: break;
    }
    return true;
}

void replay_source(void)
{
    const struct replay_label *l = &replay_at.label;
    if (l->event <= 0 || l->event >= (int)COUNT(src_events) || l->stage < 0 || l->stage >= (int)COUNT(src_stages)) {
        replay_mismatch("no such event or stage of the source");
        return;
    }
    struct lmo_src_event ev = {.kind = src_events[l->event]};
    struct lmo_src_actions a = {0};
    if (src_event(&ev, &a)) {
        src_step(&ev, &a);
    }
    if (a.persist) {
        src_disk = src;
    } else if (src_durable_differs()) {
        replay_mismatch("what must survive a crash was changed without being journaled");
    }
    if (src.stage != src_stages[l->stage]) {
        replay_mismatch("the source stands at '%s', the model says '%s'", lmo_src_stage_text(src.stage),
                        lmo_src_stage_text(src_stages[l->stage]));
    }
    if (src_actions(&a) != l->actions) {
        replay_mismatch("the source asks for %d", src_actions(&a));
    }
}

/* ------------------------------------------------------------------ the destination's worker */

static struct lmo_dst dst, dst_disk;

static const enum lmo_dst_stage dst_stages[] = {
    [D_IDLE] = LMO_DST_IDLE,           [D_ARMED] = LMO_DST_ARMED,           [D_ASKING] = LMO_DST_ASKING,
    [D_COMMITTED] = LMO_DST_COMMITTED, [D_FENCED] = LMO_DST_FENCED,         [D_RESUMED] = LMO_DST_RESUMED,
    [D_DONE] = LMO_DST_DONE,           [D_DISCARDING] = LMO_DST_DISCARDING, [D_DISCARDED] = LMO_DST_DISCARDED,
    [D_LOST] = LMO_DST_LOST,
};
_Static_assert(COUNT(dst_stages) == LMO_DST_STAGE_COUNT, "the model does not know every stage of the destination");

static const enum lmo_dst_event_kind dst_events[] = {
    [DE_PERMIT] = LMO_DSTE_PERMIT,
    [DE_SUSPENDED] = LMO_DSTE_SUSPENDED,
    [DE_LOADED] = LMO_DSTE_LOADED,
    [DE_COPY_GONE] = LMO_DSTE_COPY_GONE,
    [DE_ANSWER] = LMO_DSTE_ANSWER,
    [DE_NO_ANSWER] = LMO_DSTE_NO_ANSWER,
    [DE_FENCE_OK] = LMO_DSTE_FENCE_OK,
    [DE_FENCE_FAILED] = LMO_DSTE_FENCE_FAILED,
    [DE_VERIFY_OK] = LMO_DSTE_VERIFY_OK,
    [DE_VERIFY_FAILED] = LMO_DSTE_VERIFY_FAILED,
    [DE_RESUME_OK] = LMO_DSTE_RESUME_OK,
    [DE_RESUME_FAILED] = LMO_DSTE_RESUME_FAILED,
    [DE_TELL_OK] = LMO_DSTE_TELL_OK,
    [DE_TELL_FAILED] = LMO_DSTE_TELL_FAILED,
    [DE_DISCARD] = LMO_DSTE_DISCARD,
    [DE_REMOVE_OK] = LMO_DSTE_REMOVE_OK,
    [DE_REMOVE_FAILED] = LMO_DSTE_REMOVE_FAILED,
    [DE_RESTARTED] = LMO_DSTE_RESTARTED,
    [DE_TIMER] = LMO_DSTE_TIMER,
    [DE_CRASH_ASKED] = LMO_DSTE_RESTARTED,
};

static void dst_load(void)
{
    dst = (struct lmo_dst){.epoch = dst_disk.epoch,
                           .stage = dst_disk.stage,
                           .has_permit = dst_disk.has_permit,
                           .loaded = dst_disk.loaded,
                           .final_paused = dst_disk.final_paused,
                           .volume_count = dst_disk.volume_count,
                           .fence_sent = dst_disk.fence_sent,
                           .loaded_us = dst_disk.loaded_us,
                           .answer = dst_disk.answer};
}

static bool dst_durable_differs(void)
{
    return dst.epoch != dst_disk.epoch || dst.stage != dst_disk.stage || dst.has_permit != dst_disk.has_permit ||
           dst.volume_count != dst_disk.volume_count || dst.fence_sent != dst_disk.fence_sent ||
           dst.answer != dst_disk.answer || dst.loaded != dst_disk.loaded;
}

static int dst_actions(const struct lmo_dst_actions *a)
{
    int code = (a->activate ? DA_ACTIVATE : 0) | (a->ask ? DA_ASK : 0) | (a->fence ? DA_FENCE : 0) |
               (a->verify ? DA_VERIFY : 0) | (a->resume ? DA_RESUME : 0) | (a->tell ? DA_TELL : 0) |
               (a->remove ? DA_REMOVE : 0) | (a->remove_loaded ? DA_REMOVE_LOADED : 0) |
               (a->discard_done ? DA_DISCARD_DONE : 0) | DA_REFUSED * replay_refusal(a->refused);
    for (unsigned i = 0; i < a->report_count; i++) {
        enum lmo_worker_event_kind k = a->report[i].kind;
        code |= k == LMO_WEV_LOADED          ? DR_LOADED
                : k == LMO_WEV_PERMIT_WANTED ? DR_PERMIT_WANTED
                : k == LMO_WEV_FREEZE_WANTED ? DR_FREEZE_WANTED
                : k == LMO_WEV_COMMITTED     ? DR_COMMITTED
                : k == LMO_WEV_FENCED        ? DR_FENCED
                : k == LMO_WEV_RESUMED       ? DR_RESUMED
                : k == LMO_WEV_BACK          ? DR_BACK
                : k == LMO_WEV_COPY_LOST     ? (a->report[i].ok ? DR_LOST_FENCED : DR_COPY_LOST)
                                             : 1 << 30;
    }
    return code;
}

static void dst_step(struct lmo_dst_event *ev, struct lmo_dst_actions *ret)
{
    struct lmo_dst before = dst;
    ev->now_ms = NOW_MS;
    ev->now_us = 1;
    lmo_dst_step(&before, ev, &dst, ret);
    const char *broken = lmo_dst_broken(&before, &dst, ret);
    if (broken) {
        replay_mismatch("%s", broken);
    }
}

static void dst_event(struct lmo_dst_event *ev)
{
    static const enum lmo_run_state states[] = {LMO_RUN_INCOMING, LMO_RUN_LOADED, LMO_RUN_RUNNING, LMO_RUN_ABSENT};
    const struct replay_label *l = &replay_at.label;
    switch (l->event) {
    case DE_PERMIT:
        ev->epoch = EPOCH_PERMIT;
        ev->volume_count = 1;
        break;
    case DE_ANSWER: ev->answer = replay_answers[l->argument]; break;
    case DE_REMOVE_FAILED: ev->state = l->argument ? LMO_RUN_LOADED : LMO_RUN_UNKNOWN; break;
    case DE_CRASH_ASKED: {
        struct lmo_dst_event loaded = {.kind = LMO_DSTE_LOADED};
        struct lmo_dst_actions la;
        dst_step(&loaded, &la);
        if (!la.ask || !la.persist) {
            replay_mismatch("the loaded guest's source is not asked, or asked without being journaled afterwards");
        }
        dst_load();
        ev->state = states[l->argument];
        break;
    }
    case DE_RESTARTED:
        dst_load();
        ev->state = states[l->argument];
        break;
    case DE_TIMER:
        dst.retry_ms = NOW_MS;
        dst.loaded_ms = l->argument == 1 ? NOW_MS - LMO_ASK_RELAY_AFTER_MS : NOW_MS;
        break;
    default: break;
    }
}

void replay_destination(void)
{
    const struct replay_label *l = &replay_at.label;
    if (l->event <= 0 || l->event >= (int)COUNT(dst_events) || l->stage < 0 || l->stage >= (int)COUNT(dst_stages)) {
        replay_mismatch("no such event or stage of the destination");
        return;
    }
    struct lmo_dst_event ev = {.kind = dst_events[l->event]};
    struct lmo_dst_actions a;
    dst_event(&ev);
    dst_step(&ev, &a);
    if (a.persist) {
        dst_disk = dst;
    } else if (dst_durable_differs()) {
        replay_mismatch("what must survive a crash was changed without being journaled");
    }
    if (dst.stage != dst_stages[l->stage]) {
        replay_mismatch("the destination stands at '%s', the model says '%s'", lmo_dst_stage_text(dst.stage),
                        lmo_dst_stage_text(dst_stages[l->stage]));
    }
    if (dst_actions(&a) != l->actions) {
        replay_mismatch("the destination asks for %d", dst_actions(&a));
    }
}

const char *replay_destination_stage(void)
{
    return lmo_dst_stage_text(dst.stage);
}

void replay_workers_reset(void)
{
    src = src_disk = (struct lmo_src){.stage = LMO_SRC_IDLE};
    dst = dst_disk = (struct lmo_dst){.stage = LMO_DST_IDLE};
    src_seen = 0;
}
