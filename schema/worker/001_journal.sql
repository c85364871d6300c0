-- The worker's journal: what it was ordered, what it holds of each cutover, what it has to report.
-- One transaction holds a step's state, its reports and the result of the op that it ends.

-- key 'host': whose journal this is; a worker refuses to start on another host's.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Epochs per guest. seen: the highest that any order or permit carried; lower ones are refused.
-- closed_*: migrations up to this epoch are over in that role here; never acted upon again.
CREATE TABLE vm_epoch (
    vm                 TEXT PRIMARY KEY,
    seen               INTEGER NOT NULL CHECK (seen >= 0),
    closed_source      INTEGER NOT NULL CHECK (closed_source >= 0),
    closed_destination INTEGER NOT NULL CHECK (closed_destination >= 0),
    closed_volume      INTEGER NOT NULL CHECK (closed_volume >= 0),
    closed_fabric      INTEGER NOT NULL CHECK (closed_fabric >= 0)
) STRICT, WITHOUT ROWID;

-- Mutating ops, from their acceptance until their migration is closed here. request: while running. reply: after.
CREATE TABLE op (
    id        TEXT PRIMARY KEY,
    migration TEXT NOT NULL,
    vm        TEXT NOT NULL,
    epoch     INTEGER NOT NULL,
    role      TEXT NOT NULL CHECK (role IN ('source', 'destination', 'volume', 'fabric')),
    kind      TEXT NOT NULL,
    state     TEXT NOT NULL CHECK (state IN ('running', 'done', 'failed')),
    request   TEXT,
    reply     TEXT
) STRICT;
CREATE INDEX op_by_migration ON op (migration, role);
CREATE INDEX op_running ON op (state) WHERE state = 'running';

-- Migrations that are over here, so that a forgotten op's id is answered 410 and never 404.
CREATE TABLE closed (
    n         INTEGER PRIMARY KEY AUTOINCREMENT,
    migration TEXT NOT NULL,
    role      TEXT NOT NULL,
    epoch     INTEGER NOT NULL,
    UNIQUE (migration, role)
) STRICT;

-- Durable worker events, until the coordinator has committed what followed from them. Numbers are never reused.
CREATE TABLE event (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    json TEXT NOT NULL
) STRICT;

-- struct lmo_dst, its durable part.
CREATE TABLE dst (
    migration    TEXT PRIMARY KEY,
    vm           TEXT NOT NULL,
    epoch        INTEGER NOT NULL,
    stage        TEXT NOT NULL,
    has_permit   INTEGER NOT NULL,
    loaded       INTEGER NOT NULL,
    final_paused INTEGER NOT NULL,
    volume_count INTEGER NOT NULL,
    fence_sent   INTEGER NOT NULL,
    loaded_us    INTEGER NOT NULL,
    answer       TEXT NOT NULL,
    evidence     TEXT NOT NULL
) STRICT;

-- struct lmo_src, its durable part.
CREATE TABLE src (
    migration    TEXT PRIMARY KEY,
    vm           TEXT NOT NULL,
    epoch        INTEGER NOT NULL,
    freeze_epoch INTEGER NOT NULL,
    stage        TEXT NOT NULL,
    job_running  INTEGER NOT NULL,
    gate_open    INTEGER NOT NULL,
    final_paused INTEGER NOT NULL,
    evidence     TEXT NOT NULL,
    frozen_us    INTEGER NOT NULL,
    freeze_us    INTEGER NOT NULL
) STRICT;

-- What belongs to a dst or src record and is written once: the order that set it up (op request: ports, addresses) and
-- the permit. Apart from the records, so that a step does not write it again.
CREATE TABLE setup (
    migration TEXT NOT NULL,
    role      TEXT NOT NULL CHECK (role IN ('source', 'destination')),
    request   TEXT,
    permit    TEXT,
    PRIMARY KEY (migration, role)
) STRICT, WITHOUT ROWID;
