//! The statements by which a lane loads.
//!
//! What is wanted is a list, and each row of it is looked up by itself (`LATERAL`), in the order of the list. A join would leave it to the
//! statistics which side comes first, and those of a table that was empty say that looking at all of it costs nothing. `plans` checks it.

use crate::rows::decode;
use std::sync::LazyLock;

/// The ids come sorted: that is the order in which everybody locks.
pub(super) static TASKS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM unnest($2::uuid[]) AS w (wanted) CROSS JOIN LATERAL (
            SELECT * FROM tasks AS t WHERE t.project = $1 AND t.id = w.wanted FOR UPDATE) AS t",
        decode::TASK
    )
});
/// The roots and parents of tasks that are locked already.
pub(super) static KIN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM (SELECT DISTINCT kin.id FROM unnest($2::uuid[]) AS f (ends)
            CROSS JOIN LATERAL (SELECT root, parent FROM tasks WHERE project = $1 AND id = f.ends OFFSET 0) AS e
            CROSS JOIN LATERAL (VALUES (e.root), (e.parent)) AS kin (id) WHERE kin.id IS NOT NULL ORDER BY 1) AS w (wanted)
        CROSS JOIN LATERAL (SELECT * FROM tasks AS t WHERE t.project = $1 AND t.id = w.wanted FOR UPDATE) AS t",
        decode::TASK
    )
});
/// Those that need these tasks.
pub(super) static NEXT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM (SELECT DISTINCT e.task FROM unnest($2::uuid[]) AS f (ends)
            CROSS JOIN LATERAL (SELECT task FROM edges WHERE project = $1 AND need = f.ends ORDER BY task LIMIT $3) AS e ORDER BY 1) AS w (wanted)
        CROSS JOIN LATERAL (SELECT * FROM tasks AS t WHERE t.project = $1 AND t.id = w.wanted FOR UPDATE) AS t",
        decode::TASK
    )
});
pub(super) static ROOTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM unnest($2::uuid[]) AS w (wanted) CROSS JOIN LATERAL (
            SELECT * FROM tasks AS t WHERE t.project = $1 AND t.id = w.wanted FOR UPDATE SKIP LOCKED) AS t",
        decode::TASK
    )
});
pub(super) static HEADS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM unnest($2::text[], $3::int8[]) AS w (of_route, wanted) CROSS JOIN LATERAL (
            SELECT * FROM tasks AS t WHERE t.project = $1 AND t.queued AND t.route = w.of_route AND t.id <> ALL ($4)
            ORDER BY t.rank, t.id LIMIT w.wanted FOR UPDATE SKIP LOCKED) AS head",
        decode::TASK
    )
});
/// The same without locks, to see whether somebody else is in the way.
pub(super) const FREE_HEADS: &str = "SELECT head.id FROM unnest($2::text[], $3::int8[]) AS w (of_route, wanted) CROSS JOIN LATERAL (
    SELECT t.id FROM tasks AS t WHERE t.project = $1 AND t.queued AND t.route = w.of_route AND t.id <> ALL ($4)
    ORDER BY t.rank, t.id LIMIT w.wanted) AS head";
pub(super) const DEPENDENTS: &str = "SELECT w.need, e.task, e.order_only FROM unnest($2::uuid[], $3::uuid[]) AS w (need, after)
    CROSS JOIN LATERAL (SELECT task, order_only FROM edges WHERE project = $1 AND need = w.need AND task > w.after
    ORDER BY task LIMIT $4) AS e";
pub(super) const CHILDREN: &str = "SELECT w.parent, c.id FROM unnest($2::uuid[], $3::uuid[]) AS w (parent, after)
    CROSS JOIN LATERAL (SELECT id FROM tasks WHERE project = $1 AND parent = w.parent AND id > w.after
    ORDER BY id LIMIT $4) AS c";
pub(super) const CALLS: &str =
    "SELECT w.place, t.id FROM unnest($2::int8[], $3::uuid[], $4::text[]) AS w (place, parent, key)
    CROSS JOIN LATERAL (SELECT c.id FROM tasks AS c WHERE c.project = $1 AND c.parent = w.parent AND c.call_key = w.key OFFSET 0) AS t";
pub(super) const IDEMPOTENCY: &str = "SELECT w.key, i.task, i.body FROM unnest($2::text[]) AS w (key)
    CROSS JOIN LATERAL (SELECT task, body FROM idempotency WHERE project = $1 AND idempotency.key = w.key OFFSET 0) AS i";
pub(super) static OLD_ATTEMPTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM unnest($2::uuid[], $3::uuid[]) AS w (of_task, wanted) CROSS JOIN LATERAL (
            SELECT * FROM attempts AS o WHERE o.project = $1 AND o.task = w.of_task AND o.attempt = w.wanted OFFSET 0) AS a",
        decode::RECORD
    )
});
pub(super) const HELD: &str = "SELECT w.instance, t.id FROM unnest($2::uuid[]) AS w (instance)
    CROSS JOIN LATERAL (SELECT id FROM tasks WHERE project = $1 AND held_by = w.instance OFFSET 0) AS t";
/// What is due by the given time, or by the server's clock.
pub(super) const DUE: &str = "SELECT id FROM tasks WHERE project = $1
    AND due_at <= coalesce($2, (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8))
    ORDER BY due_at LIMIT $3";
pub(super) const READY_ROUTES: &str = "WITH RECURSIVE r (route) AS (
        (SELECT route FROM tasks WHERE project = $1 AND queued ORDER BY route LIMIT 1)
        UNION ALL SELECT (SELECT t.route FROM tasks AS t WHERE t.project = $1 AND t.queued AND t.route > r.route
            ORDER BY t.route LIMIT 1) FROM r WHERE r.route IS NOT NULL)
    SELECT route FROM r WHERE route IS NOT NULL";
/// The instances come sorted, too.
pub(super) const AGENTS: &str =
    "SELECT instance, host, incarnation, slots_used, drained, lease_until, gone, spec_version
    FROM unnest($2::uuid[]) AS w (wanted) CROSS JOIN LATERAL (
    SELECT * FROM agents AS a WHERE a.project = $1 AND a.instance = w.wanted FOR UPDATE) AS a";
pub(super) const CANDIDATES: &str = "SELECT instance, host, incarnation, slots_used, drained, lease_until, gone, spec_version
    FROM unnest($2::uuid[]) AS w (wanted) CROSS JOIN LATERAL (
    SELECT * FROM agents AS a WHERE a.project = $1 AND a.instance = w.wanted AND a.slots_used < a.slots AND NOT a.drained AND NOT a.gone
    FOR UPDATE SKIP LOCKED) AS a";
/// Whether somebody else holds what a candidate's row would give.
pub(super) const FREE_CANDIDATES: &str =
    "SELECT instance FROM unnest($2::uuid[]) AS w (wanted) CROSS JOIN LATERAL (
    SELECT * FROM agents AS a WHERE a.project = $1 AND a.instance = w.wanted OFFSET 0) AS a
    WHERE slots_used < slots AND NOT drained AND NOT gone";
pub(super) const AGENTS_OF: &str =
    "SELECT instance FROM unnest($2::uuid[]) AS w (wanted) CROSS JOIN LATERAL (
        SELECT instance FROM agents AS a WHERE a.project = $1 AND a.host = w.wanted OFFSET 0) AS a
    UNION SELECT instance FROM unnest($3::uuid[]) AS w (wanted) CROSS JOIN LATERAL (
        SELECT instance FROM agents AS a WHERE a.project = $1 AND a.instance = w.wanted OFFSET 0) AS a";
pub(super) const EXPIRED: &str = "SELECT instance FROM agents WHERE project = $1 AND NOT gone
    AND lease_until < coalesce($2, (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8))";
pub(super) const PROJECT_LOCK: &str =
    "SELECT project_events, agents_version FROM projects WHERE number = $1 FOR UPDATE";
/// Where the transaction stands: the time, the last commit before it, the version of what agents say, the number of the transaction.
pub(super) const STAMP: &str =
    "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8, agents_version,
    coalesce((SELECT max(committed_at) FROM counters WHERE project = $1), $3),
    (CASE WHEN $2 THEN pg_current_xact_id() ELSE pg_current_xact_id_if_assigned() END)::text::int8
    FROM projects WHERE number = $1";
/// For batches that only look whether something is to be done: the time, the last commit, and whether anything is ready, due, or expired, as far as
/// that is asked. Outside any transaction, so that an idle node asks this and nothing else.
pub(super) const ANYTHING: &str =
    "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8,
    coalesce((SELECT max(committed_at) FROM counters WHERE project = $1), $5),
    coalesce((SELECT $2::bool FROM tasks WHERE project = $1 AND queued ORDER BY route LIMIT 1), false)
    OR coalesce((SELECT $3::bool FROM tasks WHERE project = $1
        AND due_at <= coalesce($4, (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8)) ORDER BY due_at LIMIT 1), false)
    OR coalesce((SELECT $3::bool FROM agents WHERE project = $1 AND NOT gone
        AND lease_until < coalesce($4, (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8)) LIMIT 1), false)";
pub(super) const CLOCK: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::int8,
    pg_current_xact_id_if_assigned()::text::int8";

/// Every statement of this file, to be prepared beforehand.
pub(super) fn statements() -> Vec<&'static str> {
    vec![
        TASKS.as_str(),
        KIN.as_str(),
        NEXT.as_str(),
        ROOTS.as_str(),
        HEADS.as_str(),
        FREE_HEADS,
        DEPENDENTS,
        CHILDREN,
        CALLS,
        IDEMPOTENCY,
        OLD_ATTEMPTS.as_str(),
        HELD,
        DUE,
        READY_ROUTES,
        AGENTS,
        CANDIDATES,
        FREE_CANDIDATES,
        AGENTS_OF,
        EXPIRED,
        PROJECT_LOCK,
        STAMP,
        ANYTHING,
        CLOCK,
    ]
}
