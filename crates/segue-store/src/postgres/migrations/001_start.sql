-- The state of projects, any number of them, in the schema `segue`. Names and columns are those of SQLite. Times are milliseconds
-- since 1970-01-01T00:00:00Z by this server's clock. A payload column holds the JSON text itself (up to 2 KiB), or `#HASH:SIZE`: the SHA-256 of
-- the body in hexadecimal digits and its length in bytes. The body stands in `payloads`, or outside the database.

-- The namespaces. Every other row belongs to one of these by its small number.
CREATE TABLE projects (
    number         integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id             uuid NOT NULL UNIQUE,
    label          text NOT NULL DEFAULT '',
    project_events bigint NOT NULL DEFAULT 0, -- events of the project's own log so far; whoever writes to it locks this row
    agents_version bigint NOT NULL DEFAULT 0  -- grows whenever an agent says something new of itself
) WITH (fillfactor = 50);

-- Numbers that are never issued twice, though rows go.
CREATE SEQUENCE task_numbers;
CREATE SEQUENCE cursors;
CREATE SEQUENCE letter_numbers;

-- What is counted with every commit, in several rows a project so that commits need not wait for each other: the truth is the sum (of
-- `committed_at` the greatest). Each column s0 to s8 counts the tasks in that state.
CREATE TABLE counters (
    project      integer NOT NULL,
    shard        integer NOT NULL,
    committed_at bigint NOT NULL, -- time of the last commit: the store's clock never runs behind it
    s0 bigint NOT NULL, s1 bigint NOT NULL, s2 bigint NOT NULL, s3 bigint NOT NULL, s4 bigint NOT NULL,
    s5 bigint NOT NULL, s6 bigint NOT NULL, s7 bigint NOT NULL, s8 bigint NOT NULL,
    PRIMARY KEY (project, shard)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- Tasks with their latest attempt.
CREATE TABLE tasks (
    n             bigint NOT NULL,  -- order of arrival
    created_at    bigint NOT NULL,
    rank          bigint NOT NULL,  -- place in the queue of its route: lower is sooner
    due_at        bigint,           -- when a timer has to look at it
    ready_at      bigint,
    retry_at      bigint,
    finished_at   bigint,
    run_events    bigint NOT NULL,  -- of a root: events of its run so far
    assigned_at   bigint,
    started_at    bigint,
    pid_start     bigint,           -- start of the process in clock ticks since boot
    ended_at      bigint,
    project       integer NOT NULL,
    unmet         integer NOT NULL, -- needs that have not ended, plus one while templates are not rendered
    attempts      integer NOT NULL,
    tried         integer NOT NULL,
    lost          integer NOT NULL,
    open_children integer NOT NULL,
    children      integer NOT NULL,
    dependents    integer NOT NULL,
    number        integer,
    pid           integer,
    state         smallint NOT NULL, -- 0 blocked, 1 ready, 2 assigned, 3 running, 4 waiting, 5 retrying, 6 completed, 7 failed, 8 cancelled
    priority      smallint NOT NULL, -- 1 to 10
    hops          smallint NOT NULL,
    wait_for      smallint,          -- while waiting: 0 to resume, 1 to collect
    ending        smallint,          -- 0 completed, 1 failed, 2 delegated, 3 lost, 4 timed out, 5 cancelled; NULL while it is current
    -- What the indexes of queues and lists go by instead of `state`, so that a change that concerns neither touches no index.
    listed        smallint,          -- `state` where it is one of 0, 4, 5, 7, 8
    queued        boolean,           -- true where `state` is 1
    id            uuid NOT NULL,
    parent        uuid,             -- the task that delegated it
    root          uuid,             -- of its run; NULL where it is the root itself
    prefer        uuid,             -- the instance that a resume prefers
    held_by       uuid,             -- the instance, while it holds a slot for it
    attempt       uuid,             -- id of the latest attempt
    instance      uuid,             -- the instance, once it holds no slot any more
    incarnation   uuid,
    secret_hash   bytea,            -- the secret is kept as its hash alone
    name          text NOT NULL,
    call_key      text COLLATE "C", -- its key among its siblings
    route         text COLLATE "C" NOT NULL, -- agent:NAME, capability:NAME or group
    spec          text,             -- the rest of it as JSON; NULL where all is at its default
    input         text NOT NULL,    -- payload
    continuation  text,             -- payload: what the last attempt left for the next one
    output        text,             -- payload
    error         text              -- JSON
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 1, autovacuum_analyze_scale_factor = 0.2);

CREATE UNIQUE INDEX tasks_id ON tasks (project, id);
-- The queues: the head of each is found without passing a row of another.
CREATE INDEX tasks_ready ON tasks (project, route, rank, id) WHERE queued;
-- What is lost when an instance goes.
CREATE INDEX tasks_held ON tasks (project, held_by) WHERE held_by IS NOT NULL;
-- What timers look at.
CREATE INDEX tasks_due ON tasks (project, due_at) WHERE due_at IS NOT NULL;
-- Only tasks under others pay for these three.
CREATE INDEX tasks_children ON tasks (project, parent, id) WHERE parent IS NOT NULL;
CREATE UNIQUE INDEX tasks_calls ON tasks (project, parent, call_key) WHERE call_key IS NOT NULL;
CREATE INDEX tasks_run ON tasks (project, root, id) WHERE root IS NOT NULL;
-- What people list by state and the common path never enters.
CREATE INDEX tasks_listed ON tasks (project, listed, id) WHERE listed IS NOT NULL;

-- `task` waits for `need`.
CREATE TABLE edges (
    need       uuid NOT NULL,
    task       uuid NOT NULL,
    project    integer NOT NULL,
    order_only boolean NOT NULL, -- where only the end of `need` matters
    PRIMARY KEY (project, need, task)
);

-- Attempts that have ended.
CREATE TABLE attempts (
    assigned_at bigint NOT NULL,
    started_at  bigint,
    pid_start   bigint,
    ended_at    bigint,
    project     integer NOT NULL,
    number      integer NOT NULL,
    pid         integer,
    ending      smallint,
    task        uuid NOT NULL,
    attempt     uuid NOT NULL,
    instance    uuid NOT NULL,
    incarnation uuid NOT NULL,
    secret_hash bytea NOT NULL,
    error       text, -- JSON
    usage       text, -- JSON
    PRIMARY KEY (project, task, number)
);

-- The log. `cursor` is the place in the stream of the store, `run_seq` the one in the run, without gaps.
CREATE TABLE events (
    cursor  bigint NOT NULL,
    run_seq bigint NOT NULL,
    at      bigint NOT NULL,
    project integer NOT NULL,
    run     uuid NOT NULL,
    task    uuid,          -- NULL where it is the root of the run
    kind    text NOT NULL,
    data    text NOT NULL, -- JSON: the rest of the fact
    PRIMARY KEY (project, cursor)
);
CREATE INDEX events_run ON events (project, run, cursor);

-- Letters that are committed and not settled yet. One that gives out work is made again from its task and the store's
-- key, so that no secret stands here.
CREATE TABLE letters (
    seq     bigint NOT NULL,
    at      bigint NOT NULL,  -- when `owner` took it
    project integer NOT NULL,
    owner   uuid NOT NULL,    -- the open store that publishes it; others leave it alone for a while
    task    uuid,
    attempt uuid,             -- of a letter that gives out work: the attempt
    host    uuid,             -- of a letter that gives out work: the host it goes to
    body    text,             -- of any other letter: all of it as JSON
    PRIMARY KEY (project, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);

-- Work that a commit left behind.
CREATE TABLE duties (
    project integer NOT NULL,
    parent  boolean,          -- true where the parent does not know yet
    task    uuid NOT NULL,
    after   uuid,             -- the last one that is done already
    kind    text COLLATE "C" NOT NULL,
    PRIMARY KEY (project, task, kind)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- Agent instances.
CREATE TABLE agents (
    lease_until  bigint NOT NULL,
    spec_version bigint NOT NULL,  -- `projects.agents_version` when `spec` was written
    project      integer NOT NULL,
    slots_used   integer NOT NULL,
    slots        integer NOT NULL, -- of the spec
    drained      boolean NOT NULL,
    gone         boolean NOT NULL,
    instance     uuid NOT NULL,
    host         uuid NOT NULL,
    incarnation  uuid NOT NULL,
    spec         text NOT NULL,    -- JSON
    PRIMARY KEY (project, instance)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX agents_host ON agents (project, host);

-- Keys under which a submit is known.
CREATE TABLE idempotency (
    project integer NOT NULL,
    task    uuid NOT NULL,
    key     text COLLATE "C" NOT NULL,
    body    bytea NOT NULL, -- SHA-256 of the submit without its ids
    PRIMARY KEY (project, key)
);

-- Bodies of more than 2 and up to 64 KiB, each once a project. Larger ones stand outside the database.
CREATE TABLE payloads (
    project integer NOT NULL,
    hash    bytea NOT NULL,
    body    text NOT NULL,
    PRIMARY KEY (project, hash)
);

-- Which runs refer to which bodies, here or outside; a body without a row here may go.
CREATE TABLE payload_refs (
    project integer NOT NULL,
    run     uuid NOT NULL,
    hash    bytea NOT NULL,
    PRIMARY KEY (project, run, hash)
);
CREATE INDEX payload_refs_hash ON payload_refs (project, hash);
