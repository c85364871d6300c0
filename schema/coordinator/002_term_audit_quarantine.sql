-- Whose turn it is. Every coordinator that opens this database raises the term first, and writes nothing once somebody else
-- has raised it further; every call to a worker carries it, and workers refuse lower ones.
CREATE TABLE coordinator (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    term       INTEGER NOT NULL CHECK (term > 0)
) STRICT;

-- Who changed what, when, from where, and what came of it. Two lines per request, `asked` and its outcome, under the same
-- request id: the first is stored no later than the change itself. Lines are only ever added.
CREATE TABLE audit (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms      INTEGER NOT NULL,
    request    TEXT NOT NULL,
    principal  TEXT NOT NULL,
    remote     TEXT NOT NULL,
    action     TEXT NOT NULL,
    migration  TEXT NOT NULL,
    host       TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    detail     TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_migration ON audit (migration, n) WHERE migration <> '';
CREATE INDEX audit_by_host ON audit (host, n) WHERE host <> '';
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;

-- Open migrations that are set aside: their record cannot be read, or cannot be stored. Nothing is done about them; their
-- guest takes no other migration.
CREATE TABLE quarantine (
    migration  TEXT PRIMARY KEY NOT NULL,
    vm_uuid    TEXT NOT NULL,
    at_ms      INTEGER NOT NULL,
    why        TEXT NOT NULL
) STRICT, WITHOUT ROWID;
