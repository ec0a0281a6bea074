-- The state of a project. Times are milliseconds since 1970-01-01T00:00:00Z; ids are the sixteen bytes of a UUID.
-- A payload column holds the JSON text itself (TEXT, up to 2 KiB), or a reference to it (BLOB of 40 bytes: SHA-256 of
-- the body, then its length as a big-endian integer), which stands in `payloads` or in the folder `blobs`.

-- The namespaces. Every other row belongs to one of these by its small number.
CREATE TABLE projects (
    number INTEGER PRIMARY KEY,
    id     BLOB NOT NULL UNIQUE,
    label  TEXT NOT NULL DEFAULT ''
);

-- What the writer counts, written with every commit. Numbers are never issued twice, though rows go.
CREATE TABLE counters (
    project        INTEGER PRIMARY KEY,
    committed_at   INTEGER NOT NULL, -- time of the last commit: the store's clock never runs behind it
    next_cursor    INTEGER NOT NULL, -- of the next event
    next_letter    INTEGER NOT NULL, -- of the next letter
    next_task      INTEGER NOT NULL, -- `tasks.n` of the next task
    project_events INTEGER NOT NULL, -- events of the project's own log so far
    states         TEXT NOT NULL     -- tasks in each state, as a JSON array in the order of `tasks.state`
);

-- Tasks with their latest attempt. `n` is the place in the table: rows are appended, and found again without a search.
CREATE TABLE tasks (
    n             INTEGER PRIMARY KEY,
    project       INTEGER NOT NULL,
    -- What it is, fixed at submit.
    id            BLOB NOT NULL,
    parent        BLOB,             -- the task that delegated it
    root          BLOB,             -- of its run; NULL where it is the root itself
    name          TEXT NOT NULL,
    call_key      TEXT,             -- its key among its siblings
    route         TEXT NOT NULL,    -- agent:NAME, capability:NAME or group
    priority      INTEGER NOT NULL, -- 1 to 10
    hops          INTEGER NOT NULL,
    spec          TEXT,             -- the rest of it as JSON; NULL where all is at its default
    created_at    INTEGER NOT NULL,
    input         NOT NULL,         -- payload
    -- Where it stands.
    state         INTEGER NOT NULL, -- 0 blocked, 1 ready, 2 assigned, 3 running, 4 waiting, 5 retrying, 6 completed, 7 failed, 8 cancelled
    unmet         INTEGER NOT NULL, -- needs that have not ended, plus one while templates are not rendered
    rank          INTEGER NOT NULL, -- place in the queue of its route: lower is sooner
    due_at        INTEGER,          -- when a timer has to look at it
    attempts      INTEGER NOT NULL,
    tried         INTEGER NOT NULL,
    lost          INTEGER NOT NULL,
    open_children INTEGER NOT NULL,
    children      INTEGER NOT NULL,
    dependents    INTEGER NOT NULL,
    wait_for      INTEGER,          -- while waiting: 0 to resume, 1 to collect
    continuation,                   -- payload: what the last attempt left for the next one
    prefer        BLOB,             -- the instance that a resume prefers
    ready_at      INTEGER,
    retry_at      INTEGER,
    finished_at   INTEGER,
    output,                         -- payload
    error         TEXT,             -- JSON
    run_events    INTEGER NOT NULL, -- of a root: events of its run so far
    -- Its latest attempt. The secret is kept as its hash alone.
    held_by       BLOB,             -- the instance, while it holds a slot for it
    attempt       BLOB,             -- id
    number        INTEGER,
    secret_hash   BLOB,
    instance      BLOB,             -- the instance, once it holds no slot any more
    incarnation   BLOB,
    assigned_at   INTEGER,
    started_at    INTEGER,
    pid           INTEGER,
    pid_start     INTEGER,          -- start of the process in clock ticks since boot
    ending        INTEGER,          -- 0 completed, 1 failed, 2 delegated, 3 lost, 4 timed out, 5 cancelled; NULL while it is current
    ended_at      INTEGER
);

CREATE UNIQUE INDEX tasks_id ON tasks (project, id);
-- The queues: the head of each is found without passing a row of another.
CREATE INDEX tasks_ready ON tasks (project, route, rank, id) WHERE state = 1;
-- What is lost when an instance goes.
CREATE INDEX tasks_held ON tasks (held_by) WHERE held_by IS NOT NULL;
-- What timers look at.
CREATE INDEX tasks_due ON tasks (project, due_at) WHERE due_at IS NOT NULL;
-- Only tasks under others pay for these three.
CREATE INDEX tasks_children ON tasks (parent, id) WHERE parent IS NOT NULL;
CREATE UNIQUE INDEX tasks_calls ON tasks (parent, call_key) WHERE call_key IS NOT NULL;
CREATE INDEX tasks_run ON tasks (root, id) WHERE root IS NOT NULL;
-- What people list by state and the common path never enters: blocked, waiting, retrying, failed, cancelled. (`IN` would build
-- a table of its own for every row that is written.)
CREATE INDEX tasks_listed ON tasks (project, state, id) WHERE state NOT BETWEEN 1 AND 3 AND state <> 6;

-- `task` waits for `need`.
CREATE TABLE edges (
    need       BLOB NOT NULL,
    task       BLOB NOT NULL,
    project    INTEGER NOT NULL,
    order_only INTEGER NOT NULL, -- 1 where only the end of `need` matters
    PRIMARY KEY (need, task)
) WITHOUT ROWID;

-- Attempts that have ended.
CREATE TABLE attempts (
    task        BLOB NOT NULL,
    number      INTEGER NOT NULL,
    project     INTEGER NOT NULL,
    attempt     BLOB NOT NULL,
    secret_hash BLOB NOT NULL,
    instance    BLOB NOT NULL,
    incarnation BLOB NOT NULL,
    assigned_at INTEGER NOT NULL,
    started_at  INTEGER,
    pid         INTEGER,
    pid_start   INTEGER,
    ending      INTEGER,
    ended_at    INTEGER,
    error       TEXT, -- JSON
    usage       TEXT, -- JSON
    PRIMARY KEY (task, number)
) WITHOUT ROWID;

-- The log. `cursor` is the place in the stream of the store, `run_seq` the one in the run, without gaps.
CREATE TABLE events (
    cursor  INTEGER PRIMARY KEY,
    project INTEGER NOT NULL,
    run     BLOB NOT NULL,
    run_seq INTEGER NOT NULL,
    task    BLOB,          -- NULL where it is the root of the run
    at      INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    data    TEXT NOT NULL  -- JSON: the rest of the fact
);
CREATE INDEX events_run ON events (run);

-- Letters that are committed and not settled yet. One that gives out work is made again from its task and the store's
-- key, so that no secret stands here.
CREATE TABLE letters (
    seq     INTEGER PRIMARY KEY,
    project INTEGER NOT NULL,
    task    BLOB,
    attempt BLOB,          -- of a letter that gives out work: the attempt
    host    BLOB,          -- of a letter that gives out work: the host it goes to
    body    TEXT           -- of any other letter: all of it as JSON
);

-- Work that a commit left behind.
CREATE TABLE duties (
    task    BLOB NOT NULL,
    kind    TEXT NOT NULL,
    project INTEGER NOT NULL,
    after   BLOB,          -- the last one that is done already
    parent  INTEGER,       -- 1 where the parent does not know yet
    PRIMARY KEY (task, kind)
) WITHOUT ROWID;

-- Agent instances.
CREATE TABLE agents (
    instance    BLOB PRIMARY KEY,
    project     INTEGER NOT NULL,
    host        BLOB NOT NULL,
    incarnation BLOB NOT NULL,
    spec        TEXT NOT NULL, -- JSON
    slots_used  INTEGER NOT NULL,
    drained     INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    gone        INTEGER NOT NULL
) WITHOUT ROWID;

-- Keys under which a submit is known.
CREATE TABLE idempotency (
    project INTEGER NOT NULL,
    key     TEXT NOT NULL,
    task    BLOB NOT NULL,
    body    BLOB NOT NULL, -- SHA-256 of the submit without its ids
    PRIMARY KEY (project, key)
) WITHOUT ROWID;

-- Bodies of more than 2 and up to 64 KiB, each once. Larger ones are files in the folder `blobs`.
CREATE TABLE payloads (
    hash BLOB PRIMARY KEY,
    body TEXT NOT NULL
);

-- Which runs refer to which bodies, in `payloads` or in the folder; a body without a row here may go.
CREATE TABLE payload_refs (
    run     BLOB NOT NULL,
    hash    BLOB NOT NULL,
    project INTEGER NOT NULL,
    PRIMARY KEY (run, hash)
) WITHOUT ROWID;
CREATE INDEX payload_refs_hash ON payload_refs (hash);
