/* service.h - what a service manager is told, by the protocol of sd_notify(3): datagrams to the socket that it names in
 * NOTIFY_SOCKET. Without that variable nothing is sent and nothing fails: a program that was started by hand says the same.
 *
 * Sixty lines of our own instead of libsystemd: the protocol is stable and documented, and a library that every program
 * loads (liblzma, libzstd, libgcrypt with it) is more than one sendto() is worth.
 *
 * Any thread, at any time. A notification that cannot be sent has nowhere to be reported. */
#ifndef LMO_BASE_SERVICE_H
#define LMO_BASE_SERVICE_H

#include "base/err.h"

#include <stdint.h>

#define LMO_SERVICE_STATUS_MAX 512
#define LMO_SERVICE_END_S      5 /* after SIGTERM a program of ours ends within this, whatever a call is doing */

/* READY=1: everything is up; also the end of a reload. */
void lmo_service_ready(void);
/* RELOADING=1 with MONOTONIC_USEC, which Type=notify-reload wants. lmo_service_ready follows, whatever came of it. */
void lmo_service_reloading(void);
/* STOPPING=1, and the end by force after LMO_SERVICE_END_S: exit status 0, because all that counts is on disk at every
 * moment, so that such an end loses nothing. */
void lmo_service_stopping(void);
/* STATUS=, one line for people; line breaks become blanks. Sent if it differs from the last one. One thread only. */
void lmo_service_status(const char *fmt, ...) LMO_PRINTF(1, 2);
/* WATCHDOG=1: this program gets on. */
void lmo_service_alive(void);
/* How often lmo_service_alive is to be called, ms: a third of what the manager waits. 0: nobody waits for it. */
uint64_t lmo_service_watchdog_ms(void);

#endif
