/* ovsdb_private.h - what ovsdb.c (connection) and ovsdb_call.c (transactions, watches) share. The link's lock guards
 * all of it. */
#ifndef LMO_WORKERS_OVSDB_PRIVATE_H
#define LMO_WORKERS_OVSDB_PRIVATE_H

#include "workers/drivers/ovsdb.h"
#include "workers/drivers/ovsdb_link.h"

enum ovsdb_state {
    OVSDB_DOWN = 0, /* no connection */
    OVSDB_GREETING, /* connected, the schema is being asked for */
    OVSDB_UNFIT,    /* connected to a server whose schema lacks something; asked again after a reconnect only */
    OVSDB_READY,
};

/* One request somebody waits for; lives on the waiter's stack while it is in the list. */
struct ovsdb_call {
    int64_t id;
    bool done;
    int code;      /* 0, or UNKNOWN when the connection was lost meanwhile */
    json_t *reply; /* the whole message; owned */
    struct ovsdb_call *next;
};

struct lmo_ovsdb_watch {
    struct lmo_ovsdb *db;
    char id[24];
    char table[64];
    json_t *where;   /* owned; NULL: all rows */
    json_t *columns; /* owned array of strings */
    json_t *rows;    /* owned; row UUID -> row */
    bool current;    /* rows were received over the present connection */
    int code;        /* the server refused the monitor */
    struct lmo_ovsdb_watch *next;
};

struct lmo_ovsdb {
    struct lmo_ovsdb_link link;
    char database[64];
    const struct lmo_ovsdb_need *needs;
    size_t need_count;
    char needs_what[128];
    struct lmo_ovsdb_framer framer;
    enum ovsdb_state state;
    struct lmo_err unfit; /* why, in that state */
    int64_t next_id;
    struct ovsdb_call *calls;
    unsigned call_count;
    struct lmo_ovsdb_watch *watches;
    json_t *composite; /* owned: table -> column -> true when its value is composite; from the schema */
};

/* All locked. */

/* Hands a message to the connection. Takes `message` (NULL is NO_MEMORY). On failure nothing was sent. */
int ovsdb_post(struct lmo_ovsdb *db, json_t *message, struct lmo_err *err) LMO_MUST_CHECK;
/* Sends the request that fills `w`: when the watch is made, and again after every (re)connect. */
int ovsdb_post_monitor(struct lmo_ovsdb *db, struct lmo_ovsdb_watch *w, struct lmo_err *err) LMO_MUST_CHECK;
/* The reply to that request, and later changes; `updates`: {table: {uuid: change}}. CORRUPT: they do not fit our
 * rows. */
int ovsdb_watch_reply(struct lmo_ovsdb *db, struct lmo_ovsdb_watch *w, const json_t *message) LMO_MUST_CHECK;
int ovsdb_watch_apply(struct lmo_ovsdb *db, struct lmo_ovsdb_watch *w, const json_t *updates) LMO_MUST_CHECK;

#endif
