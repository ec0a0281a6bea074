-- State that the project shares, and locks.

-- The last number that was given to a version of a key or to the token of a lock. None is issued twice, though rows go.
CREATE TABLE stamps (
    project INTEGER PRIMARY KEY,
    last    INTEGER NOT NULL
);

-- Keys with their newest version. A deletion is a version, too; the key goes when it is pruned.
CREATE TABLE state_keys (
    project INTEGER NOT NULL,
    key     TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (project, key)
) WITHOUT ROWID;

-- The versions that are kept. A body with no room in the row is referred to in `payload_refs` under the version as the sixteen bytes
-- of an id.
CREATE TABLE state_versions (
    version INTEGER PRIMARY KEY,
    project INTEGER NOT NULL,
    key     TEXT NOT NULL,
    value,                    -- payload; NULL where this version deleted the key
    writer  TEXT NOT NULL,    -- JSON
    at      INTEGER NOT NULL,
    merged  INTEGER NOT NULL  -- 1 where it holds more than its writer gave
);
CREATE INDEX state_versions_key ON state_versions (project, key, version);

-- What happens to conflicting writes, by key or by prefix and `*`.
CREATE TABLE state_policies (
    project INTEGER NOT NULL,
    pattern TEXT NOT NULL,
    policy  TEXT NOT NULL,
    PRIMARY KEY (project, pattern)
) WITHOUT ROWID;

-- Locks. One whose time is up is free; its row goes when it is pruned.
CREATE TABLE locks (
    project  INTEGER NOT NULL,
    name     TEXT NOT NULL,
    token    INTEGER NOT NULL,
    holder   TEXT NOT NULL,
    taken_at INTEGER NOT NULL,
    until    INTEGER NOT NULL,
    PRIMARY KEY (project, name)
) WITHOUT ROWID;
