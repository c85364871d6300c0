-- What happened, in order, for those who follow it: written in the transaction of the change that it tells of. AUTOINCREMENT:
-- a number is never given a second time, not even when every line was dropped for its age. No index but the number: it is
-- read from a number on, and filtered on the way.
CREATE TABLE event (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms      INTEGER NOT NULL,
    type       TEXT NOT NULL,
    migration  TEXT NOT NULL,
    vm_uuid    TEXT NOT NULL,
    vm_name    TEXT NOT NULL,
    host       TEXT NOT NULL,
    to_host    TEXT NOT NULL,
    drain      TEXT NOT NULL,
    data       TEXT NOT NULL
) STRICT;

-- Where events are sent. `cursor`: every event up to this number was delivered, was not asked for, or lies among the dead
-- letters. Secrets stand here as they are: they sign, so they cannot be hashed; the file is readable by the coordinator only.
CREATE TABLE webhook (
    id           TEXT PRIMARY KEY NOT NULL,
    url          TEXT NOT NULL,
    types        TEXT NOT NULL,
    vm           TEXT NOT NULL,
    host         TEXT NOT NULL,
    description  TEXT NOT NULL,
    secret       TEXT NOT NULL,
    old_secret   TEXT NOT NULL,
    old_until_ms INTEGER NOT NULL,
    created_ms   INTEGER NOT NULL,
    created_by   TEXT NOT NULL,
    enabled      INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    why_disabled TEXT NOT NULL,
    cursor       INTEGER NOT NULL CHECK (cursor >= 0),
    failing_since_ms INTEGER NOT NULL,
    failures     INTEGER NOT NULL,
    last_error   TEXT NOT NULL,
    delivered    INTEGER NOT NULL,
    dropped      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Events that a webhook did not take in all its tries. `wanted`: to be sent once more.
CREATE TABLE dead_letter (
    webhook    TEXT NOT NULL REFERENCES webhook (id),
    seq        INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,
    type       TEXT NOT NULL,
    body       TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    last_error TEXT NOT NULL,
    wanted     INTEGER NOT NULL CHECK (wanted IN (0, 1)),
    PRIMARY KEY (webhook, seq)
) STRICT, WITHOUT ROWID;

-- Who wants to be told before a guest is moved.
CREATE TABLE vm_hook (
    vm_uuid      TEXT PRIMARY KEY NOT NULL,
    url          TEXT NOT NULL,
    deadline_ms  INTEGER NOT NULL,
    on_no_answer TEXT NOT NULL,
    secret       TEXT NOT NULL,
    old_secret   TEXT NOT NULL,
    old_until_ms INTEGER NOT NULL,
    created_ms   INTEGER NOT NULL,
    created_by   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
