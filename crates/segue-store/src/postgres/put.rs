//! The statements by which a lane writes.
//!
//! A row that is changed was locked in this transaction, so it stands where it is: it is looked up by its id and changed by its place (`ctid`).
//! A join by ids would look at all tasks, where the statistics are those of an empty table. `plans` checks it.
//!
//! Arrays are unnested side by side in a list of columns, not in one call: `FROM unnest(a, b, ..)` has a tuplestore for each array, and for one row of
//! forty columns making them takes longer than writing it.

pub(super) const INSERT_TASKS: &str = "INSERT INTO tasks (n, project, id, parent, root, name, call_key, route, priority, hops, spec, created_at, input,
    state, unmet, rank, due_at, attempts, tried, lost, open_children, children, dependents, wait_for, continuation,
    prefer, ready_at, retry_at, finished_at, output, error, run_events, held_by, attempt, number, secret_hash, instance,
    incarnation, assigned_at, started_at, pid, pid_start, ending, ended_at, queued, listed)
    SELECT nextval('task_numbers'), $1, u.*, CASE WHEN u.state = 1 THEN true END, CASE WHEN u.state IN (0, 4, 5, 7, 8) THEN u.state END
    FROM (SELECT unnest($2::uuid[]) AS id, unnest($3::uuid[]) AS parent, unnest($4::uuid[]) AS root, unnest($5::text[]) AS name,
    unnest($6::text[]) AS call_key, unnest($7::text[]) AS route, unnest($8::int2[]) AS priority, unnest($9::int2[]) AS hops,
    unnest($10::text[]) AS spec, unnest($11::int8[]) AS created_at, unnest($12::text[]) AS input, unnest($13::int2[]) AS state,
    unnest($14::int4[]) AS unmet, unnest($15::int8[]) AS rank, unnest($16::int8[]) AS due_at, unnest($17::int4[]) AS attempts,
    unnest($18::int4[]) AS tried, unnest($19::int4[]) AS lost, unnest($20::int4[]) AS open_children, unnest($21::int4[]) AS children,
    unnest($22::int4[]) AS dependents, unnest($23::int2[]) AS wait_for, unnest($24::text[]) AS continuation, unnest($25::uuid[]) AS prefer,
    unnest($26::int8[]) AS ready_at, unnest($27::int8[]) AS retry_at, unnest($28::int8[]) AS finished_at, unnest($29::text[]) AS output,
    unnest($30::text[]) AS error, unnest($31::int8[]) AS run_events, unnest($32::uuid[]) AS held_by, unnest($33::uuid[]) AS attempt,
    unnest($34::int4[]) AS number, unnest($35::bytea[]) AS secret_hash, unnest($36::uuid[]) AS instance,
    unnest($37::uuid[]) AS incarnation, unnest($38::int8[]) AS assigned_at, unnest($39::int8[]) AS started_at, unnest($40::int4[]) AS pid,
    unnest($41::int8[]) AS pid_start, unnest($42::int2[]) AS ending, unnest($43::int8[]) AS ended_at) AS u";
pub(super) const UPDATE_TASKS: &str = "UPDATE tasks AS t SET state = u.state, unmet = u.unmet, rank = u.rank, due_at = u.due_at,
    attempts = u.attempts, tried = u.tried, lost = u.lost, open_children = u.open_children, children = u.children,
    dependents = u.dependents, wait_for = u.wait_for, continuation = u.continuation, prefer = u.prefer, ready_at = u.ready_at,
    retry_at = u.retry_at, finished_at = u.finished_at, output = u.output, error = u.error, run_events = u.run_events,
    held_by = u.held_by, attempt = u.attempt, number = u.number, secret_hash = u.secret_hash, instance = u.instance,
    incarnation = u.incarnation, assigned_at = u.assigned_at, started_at = u.started_at, pid = u.pid, pid_start = u.pid_start,
    ending = u.ending, ended_at = u.ended_at,
    queued = CASE WHEN u.state = 1 THEN true END, listed = CASE WHEN u.state IN (0, 4, 5, 7, 8) THEN u.state END
    FROM (SELECT unnest($2::uuid[]) AS id, unnest($3::int2[]) AS state, unnest($4::int4[]) AS unmet, unnest($5::int8[]) AS rank,
    unnest($6::int8[]) AS due_at, unnest($7::int4[]) AS attempts, unnest($8::int4[]) AS tried, unnest($9::int4[]) AS lost,
    unnest($10::int4[]) AS open_children, unnest($11::int4[]) AS children, unnest($12::int4[]) AS dependents,
    unnest($13::int2[]) AS wait_for, unnest($14::text[]) AS continuation, unnest($15::uuid[]) AS prefer, unnest($16::int8[]) AS ready_at,
    unnest($17::int8[]) AS retry_at, unnest($18::int8[]) AS finished_at, unnest($19::text[]) AS output, unnest($20::text[]) AS error,
    unnest($21::int8[]) AS run_events, unnest($22::uuid[]) AS held_by, unnest($23::uuid[]) AS attempt, unnest($24::int4[]) AS number,
    unnest($25::bytea[]) AS secret_hash, unnest($26::uuid[]) AS instance, unnest($27::uuid[]) AS incarnation,
    unnest($28::int8[]) AS assigned_at, unnest($29::int8[]) AS started_at, unnest($30::int4[]) AS pid, unnest($31::int8[]) AS pid_start,
    unnest($32::int2[]) AS ending, unnest($33::int8[]) AS ended_at) AS u
    WHERE t.ctid = (SELECT k.ctid FROM tasks AS k WHERE k.project = $1 AND k.id = u.id)";
pub(super) const TOUCH_TASKS: &str = "UPDATE tasks AS t SET state = u.state, unmet = u.unmet, open_children = u.open_children,
    children = u.children, dependents = u.dependents, run_events = u.run_events, started_at = u.started_at, pid = u.pid,
    pid_start = u.pid_start
    FROM (SELECT unnest($2::uuid[]) AS id, unnest($3::int2[]) AS state, unnest($4::int4[]) AS unmet, unnest($5::int4[]) AS open_children,
    unnest($6::int4[]) AS children, unnest($7::int4[]) AS dependents, unnest($8::int8[]) AS run_events, unnest($9::int8[]) AS started_at,
    unnest($10::int4[]) AS pid, unnest($11::int8[]) AS pid_start) AS u
    WHERE t.ctid = (SELECT k.ctid FROM tasks AS k WHERE k.project = $1 AND k.id = u.id)";
pub(super) const UPDATE_FIXED: &str = "UPDATE tasks AS t SET name = u.name, route = u.route, priority = u.priority, hops = u.hops,
    spec = u.spec, input = u.input, created_at = u.created_at
    FROM (SELECT unnest($2::uuid[]) AS id, unnest($3::text[]) AS name, unnest($4::text[]) AS route, unnest($5::int2[]) AS priority,
    unnest($6::int2[]) AS hops, unnest($7::text[]) AS spec, unnest($8::text[]) AS input, unnest($9::int8[]) AS created_at) AS u
    WHERE t.ctid = (SELECT k.ctid FROM tasks AS k WHERE k.project = $1 AND k.id = u.id)";
pub(super) const EDGES: &str = "INSERT INTO edges (project, need, task, order_only)
    SELECT $1, u.*
    FROM (SELECT unnest($2::uuid[]) AS need, unnest($3::uuid[]) AS task, unnest($4::bool[]) AS order_only) AS u
    ON CONFLICT (project, need, task) DO UPDATE SET order_only = edges.order_only AND excluded.order_only";
pub(super) const ATTEMPTS: &str = "INSERT INTO attempts (project, task, number, attempt, secret_hash, instance, incarnation, assigned_at,
    started_at, pid, pid_start, ending, ended_at, error, usage)
    SELECT $1, u.*
    FROM (SELECT unnest($2::uuid[]) AS task, unnest($3::int4[]) AS number, unnest($4::uuid[]) AS attempt, unnest($5::bytea[]) AS secret_hash,
    unnest($6::uuid[]) AS instance, unnest($7::uuid[]) AS incarnation, unnest($8::int8[]) AS assigned_at, unnest($9::int8[]) AS started_at,
    unnest($10::int4[]) AS pid, unnest($11::int8[]) AS pid_start, unnest($12::int2[]) AS ending, unnest($13::int8[]) AS ended_at,
    unnest($14::text[]) AS error, unnest($15::text[]) AS usage) AS u
    ON CONFLICT (project, task, number) DO UPDATE SET attempt = excluded.attempt, secret_hash = excluded.secret_hash,
    instance = excluded.instance, incarnation = excluded.incarnation, assigned_at = excluded.assigned_at,
    started_at = excluded.started_at, pid = excluded.pid, pid_start = excluded.pid_start, ending = excluded.ending,
    ended_at = excluded.ended_at, error = excluded.error, usage = excluded.usage";
pub(super) const UPDATE_AGENTS: &str = "UPDATE agents AS a SET host = u.host, incarnation = u.incarnation, slots_used = u.slots_used,
    drained = u.drained, lease_until = u.lease_until, gone = u.gone
    FROM (SELECT unnest($2::uuid[]) AS instance, unnest($3::uuid[]) AS host, unnest($4::uuid[]) AS incarnation,
    unnest($5::int4[]) AS slots_used, unnest($6::bool[]) AS drained, unnest($7::int8[]) AS lease_until, unnest($8::bool[]) AS gone) AS u
    WHERE a.ctid = (SELECT k.ctid FROM agents AS k WHERE k.project = $1 AND k.instance = u.instance)";
pub(super) const PUT_AGENTS: &str = "INSERT INTO agents (project, spec_version, instance, host, incarnation, slots_used, drained, lease_until, gone, slots, spec)
    SELECT $1, $2, u.*
    FROM (SELECT unnest($3::uuid[]) AS instance, unnest($4::uuid[]) AS host, unnest($5::uuid[]) AS incarnation,
    unnest($6::int4[]) AS slots_used, unnest($7::bool[]) AS drained, unnest($8::int8[]) AS lease_until, unnest($9::bool[]) AS gone,
    unnest($10::int4[]) AS slots, unnest($11::text[]) AS spec) AS u
    ON CONFLICT (project, instance) DO UPDATE SET spec_version = excluded.spec_version, host = excluded.host,
    incarnation = excluded.incarnation, slots_used = excluded.slots_used, drained = excluded.drained,
    lease_until = excluded.lease_until, gone = excluded.gone, slots = excluded.slots, spec = excluded.spec";
/// Says from which cursor on this transaction may issue some, for [`queries`](super::queries): so no reader steps over them.
pub(super) const GUARD_CURSORS: &str = "SELECT pg_advisory_xact_lock_shared($1,
    (SELECT ((CASE WHEN is_called THEN last_value ELSE last_value - 1 END) % 2147483648)::int4 FROM cursors))";
pub(super) const EVENTS: &str = "INSERT INTO events (cursor, project, run, run_seq, task, at, kind, data)
    SELECT nextval('cursors'), $1, u.*
    FROM (SELECT unnest($2::uuid[]) AS run, unnest($3::int8[]) AS run_seq, unnest($4::uuid[]) AS task, unnest($5::int8[]) AS at,
    unnest($6::text[]) AS kind, unnest($7::text[]) AS data) AS u";
pub(super) const LETTERS: &str = "INSERT INTO letters (seq, project, owner, at, task, attempt, host, body)
    SELECT nextval('letter_numbers'), $1, $2, $3, u.*
    FROM (SELECT unnest($4::uuid[]) AS task, unnest($5::uuid[]) AS attempt, unnest($6::uuid[]) AS host, unnest($7::text[]) AS body) AS u
    RETURNING seq";
pub(super) const SETTLE: &str = "DELETE FROM letters WHERE ctid = ANY(ARRAY(SELECT l.ctid FROM unnest($2::int8[]) AS w (wanted)
    CROSS JOIN LATERAL (SELECT ctid FROM letters WHERE project = $1 AND seq = w.wanted OFFSET 0) AS l))";
pub(super) const PUT_DUTIES: &str = "INSERT INTO duties (project, task, kind, after, parent)
    SELECT $1, u.*
    FROM (SELECT unnest($2::uuid[]) AS task, unnest($3::text[]) AS kind, unnest($4::uuid[]) AS after, unnest($5::bool[]) AS parent) AS u
    ON CONFLICT (project, task, kind) DO UPDATE SET after = excluded.after, parent = excluded.parent";
pub(super) const END_DUTIES: &str =
    "DELETE FROM duties WHERE ctid = ANY(ARRAY(SELECT d.ctid FROM unnest($2::uuid[], $3::text[]) AS u (task, kind)
    CROSS JOIN LATERAL (SELECT ctid FROM duties AS k WHERE k.project = $1 AND k.task = u.task AND k.kind = u.kind OFFSET 0) AS d))";
pub(super) const IDEMPOTENCY: &str = "INSERT INTO idempotency (project, key, task, body)
    SELECT $1, u.*
    FROM (SELECT unnest($2::text[]) AS key, unnest($3::uuid[]) AS task, unnest($4::bytea[]) AS body) AS u";
/// A body that is there already is locked, so that no prune takes it away meanwhile.
pub(super) const BODIES: &str = "INSERT INTO payloads (project, hash, body)
    SELECT $1, u.* FROM unnest($2::bytea[], $3::text[]) AS u (hash, body)
    ON CONFLICT (project, hash) DO UPDATE SET hash = excluded.hash";
/// The hashes come sorted.
pub(super) const LOCK_BODIES: &str =
    "SELECT 1 FROM unnest($2::bytea[]) AS w (wanted) CROSS JOIN LATERAL (
    SELECT 1 FROM payloads AS p WHERE p.project = $1 AND p.hash = w.wanted FOR SHARE) AS p";
pub(super) const BODY_REFS: &str = "INSERT INTO payload_refs (project, run, hash)
    SELECT $1, u.* FROM unnest($2::uuid[], $3::bytea[]) AS u (run, hash) ON CONFLICT DO NOTHING";
pub(super) const PROJECT: &str = "UPDATE projects SET project_events = coalesce($2, project_events), agents_version = $3 WHERE number = $1";
pub(super) const COUNTERS: &str = "INSERT INTO counters (project, shard, committed_at, s0, s1, s2, s3, s4, s5, s6, s7, s8)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (project, shard) DO UPDATE SET committed_at = greatest(counters.committed_at, excluded.committed_at),
    s0 = counters.s0 + excluded.s0, s1 = counters.s1 + excluded.s1, s2 = counters.s2 + excluded.s2,
    s3 = counters.s3 + excluded.s3, s4 = counters.s4 + excluded.s4, s5 = counters.s5 + excluded.s5,
    s6 = counters.s6 + excluded.s6, s7 = counters.s7 + excluded.s7, s8 = counters.s8 + excluded.s8";

/// Every statement of this file, to be prepared beforehand.
pub(super) fn statements() -> Vec<&'static str> {
    vec![
        INSERT_TASKS,
        UPDATE_TASKS,
        TOUCH_TASKS,
        UPDATE_FIXED,
        EDGES,
        ATTEMPTS,
        UPDATE_AGENTS,
        PUT_AGENTS,
        GUARD_CURSORS,
        EVENTS,
        LETTERS,
        SETTLE,
        PUT_DUTIES,
        END_DUTIES,
        IDEMPOTENCY,
        BODIES,
        LOCK_BODIES,
        BODY_REFS,
        PROJECT,
        COUNTERS,
        "BEGIN",
        "COMMIT",
    ]
}
