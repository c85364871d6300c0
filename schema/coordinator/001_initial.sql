-- The coordinator's database. Words are stored, never enum numbers. Times: ms since 1970.

-- Workers that the coordinator talks to. `cursor`: everything up to this number of the worker's event stream is part of
-- the records below; it moves in the same transaction as the records that the events changed.
CREATE TABLE host (
    name       TEXT PRIMARY KEY NOT NULL,
    url        TEXT NOT NULL,
    cursor     INTEGER NOT NULL DEFAULT 0 CHECK (cursor >= 0)
) STRICT, WITHOUT ROWID;

-- The last epoch handed out for a guest. Rows are never deleted: a lower epoch must never be handed out again.
CREATE TABLE vm_epoch (
    vm_uuid    TEXT PRIMARY KEY NOT NULL,
    epoch      INTEGER NOT NULL CHECK (epoch > 0)
) STRICT, WITHOUT ROWID;

-- One row per migration. `record` is the whole record as JSON; the other columns repeat what is searched for.
CREATE TABLE migration (
    id          TEXT PRIMARY KEY NOT NULL,
    vm_uuid     TEXT NOT NULL,
    vm_name     TEXT NOT NULL,
    source      TEXT NOT NULL,
    destination TEXT NOT NULL,
    phase       TEXT NOT NULL,
    terminal    INTEGER NOT NULL CHECK (terminal IN (0, 1)),
    version     INTEGER NOT NULL CHECK (version > 0),
    created_ms  INTEGER NOT NULL,
    updated_ms  INTEGER NOT NULL,
    record      TEXT NOT NULL
) STRICT;
-- One migration per guest at a time, whatever the programs above believe.
CREATE UNIQUE INDEX migration_one_per_vm ON migration (vm_uuid) WHERE terminal = 0;
CREATE INDEX migration_by_vm ON migration (vm_uuid, id);
CREATE INDEX migration_by_vm_name ON migration (vm_name, id);
CREATE INDEX migration_by_phase ON migration (phase, id);

-- The guest's XML as it was described, beside the record so that a step of the record does not write it again. Kept while
-- the migration is open or needs a person's attention.
CREATE TABLE migration_xml (
    migration  TEXT PRIMARY KEY NOT NULL REFERENCES migration (id),
    xml        TEXT NOT NULL
) STRICT;

-- What was decided and observed, and why, in order.
CREATE TABLE journal (
    migration  TEXT NOT NULL REFERENCES migration (id),
    n          INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,
    phase      TEXT NOT NULL,
    what       TEXT NOT NULL,
    why        TEXT NOT NULL,
    PRIMARY KEY (migration, n)
) STRICT, WITHOUT ROWID;

-- Keys that clients sent with a request, so that its repetition has no second effect.
CREATE TABLE idempotency (
    principal  TEXT NOT NULL,
    key        TEXT NOT NULL,
    hash       TEXT NOT NULL,
    migration  TEXT NOT NULL REFERENCES migration (id),
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (principal, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_ms);
