-- Answers to requests that came with an Idempotency-Key: whoever repeats the request within a week gets the same answer, and
-- nothing is done a second time. Written in the transaction of what the request changed. `hash` is that of method, path, query
-- and body. An empty `body` with a `location` means the object there, as it is then.
CREATE TABLE kept_answer (
    principal  TEXT NOT NULL,
    key        TEXT NOT NULL,
    hash       TEXT NOT NULL,
    status     INTEGER NOT NULL CHECK (status BETWEEN 200 AND 299),
    location   TEXT NOT NULL,
    etag       TEXT NOT NULL,
    body       TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (principal, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX kept_answer_by_age ON kept_answer (created_ms);
INSERT INTO kept_answer SELECT principal, key, hash, 202, '/v1/migrations/' || migration, '', '', created_ms FROM idempotency;
DROP TABLE idempotency;

-- A migration that has ended, as lists show it: rendered once, when it ends. Rows of before this table are rendered from their
-- records.
CREATE TABLE migration_summary (
    id         TEXT PRIMARY KEY NOT NULL REFERENCES migration (id),
    summary    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Which migrations a host took part in, as source or destination: written once, when they are accepted.
CREATE TABLE migration_host (
    host       TEXT NOT NULL,
    id         TEXT NOT NULL REFERENCES migration (id),
    PRIMARY KEY (host, id)
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO migration_host SELECT source, id FROM migration;
INSERT OR IGNORE INTO migration_host SELECT destination, id FROM migration;

-- Bearer tokens. The secret itself is nowhere: `hash` is the SHA-256 of 256 random bits. A row stays after its token was
-- revoked or has expired: it says who made it.
CREATE TABLE token (
    id         TEXT PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL,
    role       TEXT NOT NULL,
    hash       TEXT NOT NULL CHECK (length(hash) = 64),
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    revoked_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX token_one_per_name ON token (name) WHERE revoked_ms IS NULL;
