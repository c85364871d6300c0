-- What an operator or a drain said about a host: cordon and labels, as JSON; NULL: nothing was.
ALTER TABLE host ADD COLUMN mark TEXT;

-- One row per drain, one per host of it, one per guest's move in it: each is written when it changes, all that one step changed in
-- one transaction. `record` is the whole of it as JSON; the other columns repeat what is searched for.
CREATE TABLE drain (
    id         TEXT PRIMARY KEY NOT NULL,
    state      TEXT NOT NULL,
    terminal   INTEGER NOT NULL CHECK (terminal IN (0, 1)),
    updated_ms INTEGER NOT NULL,
    record     TEXT NOT NULL
) STRICT;
CREATE INDEX drain_by_state ON drain (state, id);
CREATE INDEX drain_open ON drain (id) WHERE terminal = 0;
CREATE TABLE drain_host (
    drain      TEXT NOT NULL REFERENCES drain (id),
    n          INTEGER NOT NULL CHECK (n >= 0),
    host       TEXT NOT NULL,
    record     TEXT NOT NULL,
    PRIMARY KEY (drain, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE drain_guest (
    drain      TEXT NOT NULL REFERENCES drain (id),
    n          INTEGER NOT NULL CHECK (n >= 0),
    vm_uuid    TEXT NOT NULL,
    record     TEXT NOT NULL,
    PRIMARY KEY (drain, n)
) STRICT, WITHOUT ROWID;

-- What was said about a guest: its policy, and who wants it left alone until when. As JSON.
CREATE TABLE vm_policy (
    vm_uuid    TEXT PRIMARY KEY NOT NULL,
    record     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE vm_lease (
    vm_uuid    TEXT PRIMARY KEY NOT NULL,
    record     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
