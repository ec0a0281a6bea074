-- State that projects share, and locks. Names and columns are those of SQLite.

-- The last number that was given to a version of a key or to the token of a lock. None is issued twice, though rows go. Whoever decides on shared
-- state or a lock holds this row until the commit, so numbers are committed in their order.
CREATE TABLE stamps (
    project integer PRIMARY KEY,
    last    bigint NOT NULL
) WITH (fillfactor = 50);

-- Keys with their newest version. A deletion is a version, too; the key goes when it is pruned.
CREATE TABLE state_keys (
    project integer NOT NULL,
    key     text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (project, key)
) WITH (fillfactor = 80);

-- The versions that are kept. A body with no room in the row is referred to in `payload_refs` under the version as the sixteen bytes
-- of an id.
CREATE TABLE state_versions (
    version bigint NOT NULL,
    project integer NOT NULL,
    merged  boolean NOT NULL, -- whether it holds more than its writer gave
    key     text COLLATE "C" NOT NULL,
    value   text,             -- payload; NULL where this version deleted the key
    writer  text NOT NULL,    -- JSON
    at      bigint NOT NULL,
    PRIMARY KEY (project, version)
);
CREATE INDEX state_versions_key ON state_versions (project, key, version);

-- What happens to conflicting writes, by key or by prefix and `*`.
CREATE TABLE state_policies (
    project integer NOT NULL,
    pattern text COLLATE "C" NOT NULL,
    policy  text NOT NULL,
    PRIMARY KEY (project, pattern)
);

-- Locks. One whose time is up is free; its row goes when it is pruned.
CREATE TABLE locks (
    project  integer NOT NULL,
    name     text COLLATE "C" NOT NULL,
    token    bigint NOT NULL,
    holder   text NOT NULL,
    taken_at bigint NOT NULL,
    until    bigint NOT NULL,
    PRIMARY KEY (project, name)
) WITH (fillfactor = 50);
