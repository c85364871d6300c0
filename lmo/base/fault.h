/* fault.h - named points in the code at which a pre-production build can be made to crash, stop or wait.
 *
 * Compiled in only with the build option LMO_FAULT_POINTS (cmake -DLMO_FAULT_POINTS=ON, preset "faults"). Any other
 * build has none: the macro is empty, its arguments are not evaluated, and `--version` says "fault points: none".
 *
 * What is to happen is read, at every hit, from the file that the environment variable LMO_FAULT_ORDERS names; a build
 * without the option ignores it. One order in a line:
 *
 *     <id> <place>[:<detail>] <nth> crash|stop|hold|delay <ms>
 *
 *   id      a word, unique in the file: an order strikes once, restarts of the process included
 *   place   of the table below; detail: an operation, event or stage in its stored word; without one: any
 *   nth     counts hits within the process since it first saw the order; 1 is the next
 *   crash   the process ends at once, as by SIGKILL: nothing is flushed
 *   stop    SIGSTOP to itself; somebody else continues it (ms is ignored)
 *   hold    the thread waits until the order is no longer in the file, ms at most: somebody does something meanwhile, and
 *           what the process shares with others is not held up with it
 *   delay   the thread sleeps for ms
 *
 * Before it strikes, the order's line is added to LMO_FAULT_ORDERS.struck and synced, so that whoever gave the order
 * knows, and a restarted process does not strike again. Lines that are no orders are ignored with a warning. */
#ifndef LMO_BASE_FAULT_H
#define LMO_BASE_FAULT_H

/*    name                 text                   what has happened, and what has not */
#define LMO_FAULT_PLACES(X)                                                                                 \
    X(COORDINATOR_COMMIT,  "coordinator.commit")  /* a turn is decided; nothing of it is stored */          \
    X(COORDINATOR_EFFECTS, "coordinator.effects") /* stored; nothing of it is sent or answered */           \
    X(COORDINATOR_SEND,    "coordinator.send")    /* an order is about to be sent; detail: operation */     \
    X(COORDINATOR_REPLY,   "coordinator.reply")   /* an answer has come, not stepped; detail: operation */  \
    X(COORDINATOR_EVENT,   "coordinator.event")   /* an event has come, not stepped; detail: event */       \
    X(WORKER_ACCEPTED,     "worker.accepted")     /* an order is durable, not begun; detail: operation */   \
    X(WORKER_ENDED,        "worker.ended")        /* carried out, result not durable; detail: operation */  \
    X(WORKER_ANSWER,       "worker.answer")       /* result durable, nobody told; detail: operation */      \
    X(SOURCE_STEP,         "source.step")         /* decided, not durable; detail: stage */                 \
    X(SOURCE_DURABLE,      "source.durable")      /* durable, its effects not begun */                      \
    X(DESTINATION_STEP,    "destination.step")    /* decided, not durable; detail: stage */                 \
    X(DESTINATION_DURABLE, "destination.durable") /* durable, its effects not begun; detail: stage */

enum lmo_fault_place {
#define X(name, text) LMO_FAULT_##name,
    LMO_FAULT_PLACES(X)
#undef X
    LMO_FAULT_PLACE_COUNT
};

#ifdef LMO_FAULT_POINTS
#define LMO_FAULT_BUILD "fault points: compiled in; not for production"
#define LMO_FAULT_JSON "true"
/* Any thread. `detail` is a static word or "". */
void lmo_fault_hit(enum lmo_fault_place place, const char *detail);
#define LMO_FAULT(place, detail) lmo_fault_hit(LMO_FAULT_##place, (detail))
#else
#define LMO_FAULT_BUILD "fault points: none"
#define LMO_FAULT_JSON "false"
#define LMO_FAULT(place, detail) ((void)0)
#endif

#endif
