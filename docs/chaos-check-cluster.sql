-- Recounts a chaos run of a cluster from what it left behind, and from nothing else: the PostgreSQL database and four text files.
--
--     cd FOLDER && psql --no-psqlrc --quiet --file chaos-check-cluster.sql "$URL"
--
-- The folder keeps the database as statements (database.sql), which psql puts into any empty one.
--
-- `cargo xtask chaos --cluster` runs the same statements at its end. They share no code with the engine and the store; all that they write are
-- temporary tables. Each row of the result is: name | found | wanted | verdict. It is chaos-check.sql for another database: what a finding of the
-- same name counts is the same.
--
-- The files, with a tabulator between the columns:
--   submitted.txt  idempotency key, and the number of tasks that must come of it; written once the submit was answered
--   journal.txt    task, attempt, and `start`, `end` or `fail`; written by the agents themselves, in the order of the events (with blanks)
--   faults.txt     number of a fault, its name, its victim, begin and end in milliseconds since 1970, and how many seconds work may stand
--                  still after its end
--   bodies.txt     hash and size of each body outside the database whose content has the hash that its name says, and the attempt that an
--                  output names

\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
\pset fieldsep ' | '
SET search_path = segue, public;
SET client_min_messages = warning;
SET jit = off;
CREATE TEMP TABLE submitted (key text, tasks bigint);
CREATE TEMP TABLE journal (line bigint GENERATED ALWAYS AS IDENTITY, task uuid, attempt uuid, what text);
CREATE TEMP TABLE faults (number bigint, name text, victim text, began bigint, ended bigint, within_s numeric);
\copy submitted FROM 'submitted.txt'
\copy journal (task, attempt, what) FROM 'journal.txt' WITH (DELIMITER ' ')
\copy faults FROM 'faults.txt'
CREATE TEMP TABLE listed (hash text, size bigint, attempt text);
\copy listed FROM 'bodies.txt'

-- The log. A NULL task is the root of the run.
CREATE TEMP TABLE log AS
SELECT cursor, run, run_seq, coalesce(task, run) AS task, at, kind, data::jsonb AS data FROM segue.events;
CREATE INDEX ON log (task, kind);
CREATE INDEX ON log (at);
ANALYZE log;

CREATE TEMP TABLE done AS
SELECT task, run_seq, cursor, at, (data ->> 'number')::int AS number FROM log WHERE kind = 'completed';
CREATE INDEX ON done (task);

CREATE TEMP TABLE given AS
SELECT task, run_seq, cursor, at, (data ->> 'number')::int AS number, (data ->> 'attempt')::uuid AS attempt
FROM log WHERE kind = 'assigned';
CREATE INDEX ON given (task, number);
CREATE INDEX ON given (attempt);

-- What the agents really did. `line` is the order in which it happened.
CREATE TEMP TABLE ran AS SELECT line, task, attempt, what FROM journal;
CREATE INDEX ON ran (task, what);
CREATE INDEX ON ran (attempt, what);

-- The attempt that completed each task, and when its agent had done the work. Groups have none.
CREATE TEMP TABLE winner AS
SELECT done.task, done.number, given.attempt,
    (SELECT max(line) FROM ran WHERE ran.attempt = given.attempt AND what = 'end') AS end_line
FROM done JOIN given ON given.task = done.task AND given.number = done.number;
CREATE INDEX ON winner (task);

-- Bodies that have no room in their row: those that a row refers to, and those that are there and are what their names say.
CREATE TEMP TABLE refs AS
SELECT DISTINCT decode(substr(split_part(body, ':', 1), 2), 'hex') AS hash, split_part(body, ':', 2)::bigint AS size FROM (
    SELECT input FROM segue.tasks UNION ALL SELECT continuation FROM segue.tasks UNION ALL SELECT output FROM segue.tasks
    UNION ALL SELECT value FROM segue.state_versions
) AS each (body) WHERE body LIKE '#%';
CREATE TEMP TABLE bodies AS
SELECT DISTINCT decode(hash, 'hex') AS hash, size, attempt FROM listed
UNION
SELECT hash, octet_length(body), CASE WHEN body LIKE '{%' THEN body::jsonb ->> 'attempt' END FROM segue.payloads
WHERE sha256(convert_to(body, 'UTF8')) = hash;
CREATE INDEX ON bodies (hash);

CREATE TEMP TABLE runs AS
SELECT coalesce(root, id) AS root, count(*) AS tasks, count(*) FILTER (WHERE state = 6) AS completed FROM segue.tasks GROUP BY 1;
CREATE INDEX ON runs (root);
ANALYZE;

CREATE TEMP TABLE found (row bigint GENERATED ALWAYS AS IDENTITY, name text, found numeric, wanted numeric, at_most boolean DEFAULT false);

-- Nothing is lost, nothing is there that nobody submitted, and everything has ended.
INSERT INTO found (name, found, wanted) SELECT 'tasks', count(*), (SELECT coalesce(sum(tasks), 0) FROM submitted) FROM segue.tasks;
INSERT INTO found (name, found, wanted) SELECT 'completed', count(*) FILTER (WHERE state = 6), count(*) FROM segue.tasks;
INSERT INTO found (name, found, wanted) SELECT 'not_terminal', count(*) FILTER (WHERE state NOT IN (6, 7, 8)), 0 FROM segue.tasks;
INSERT INTO found (name, found, wanted)
SELECT 'lost', coalesce(sum(greatest(0, submitted.tasks - coalesce(runs.completed, 0))), 0), 0
FROM submitted LEFT JOIN segue.idempotency ON idempotency.key = submitted.key LEFT JOIN runs ON runs.root = idempotency.task;

-- Each task completed exactly once.
INSERT INTO found (name, found, wanted)
SELECT 'completed_twice', count(*), 0 FROM (SELECT task FROM done GROUP BY task HAVING count(*) > 1) AS twice;
INSERT INTO found (name, found, wanted)
SELECT 'completed_without_event', count(*), 0 FROM segue.tasks
WHERE state = 6 AND NOT EXISTS (SELECT 1 FROM done WHERE done.task = tasks.id);

-- What is completed is not run again: by the order of the log, by the number of the attempt, and by the order in which the
-- agents wrote into the journal.
INSERT INTO found (name, found, wanted)
SELECT 'rerun_after_completed', count(*), 0 FROM (
    SELECT given.task FROM given JOIN done ON done.task = given.task WHERE given.run_seq > done.run_seq
    UNION
    SELECT ran.task FROM ran JOIN given ON given.attempt = ran.attempt JOIN done ON done.task = given.task
    WHERE ran.what = 'start' AND given.number > done.number
) AS again;

-- No outcome was accepted from an attempt after another one had been given the task.
INSERT INTO found (name, found, wanted)
SELECT 'stale_accepted', count(*), 0
FROM log JOIN given ON given.task = log.task AND given.run_seq < log.run_seq
WHERE log.kind IN ('started', 'completed', 'attempt_failed', 'waiting')
    AND (log.data ->> 'number')::int > 0 AND given.number > (log.data ->> 'number')::int;

-- What ran had been committed before; no attempt ran twice; what is said to be done was done.
INSERT INTO found (name, found, wanted)
SELECT 'ran_unassigned', count(*), 0 FROM ran
WHERE what = 'start' AND NOT EXISTS (SELECT 1 FROM given WHERE given.attempt = ran.attempt AND given.task = ran.task);
INSERT INTO found (name, found, wanted)
SELECT 'attempt_ran_twice', count(*), 0 FROM (SELECT attempt FROM ran WHERE what = 'start' GROUP BY attempt HAVING count(*) > 1) AS twice;
INSERT INTO found (name, found, wanted) SELECT 'completed_without_work', count(*), 0 FROM winner WHERE end_line IS NULL;

-- A task came after what it needs, and a parent after its children.
INSERT INTO found (name, found, wanted)
SELECT 'assigned_too_soon', count(*), 0 FROM segue.edges
WHERE (SELECT min(cursor) FROM given WHERE given.task = edges.task) < (SELECT min(cursor) FROM done WHERE done.task = edges.need);
INSERT INTO found (name, found, wanted)
SELECT 'ran_too_soon', count(*), 0 FROM segue.edges
WHERE (SELECT min(line) FROM ran WHERE ran.task = edges.task AND what = 'start')
    < (SELECT min(end_line) FROM winner WHERE winner.task = edges.need);
INSERT INTO found (name, found, wanted)
SELECT 'parent_completed_too_soon', count(*), 0 FROM segue.tasks
WHERE parent IS NOT NULL AND (SELECT max(run_seq) FROM done WHERE done.task = tasks.parent)
    < (SELECT max(run_seq) FROM done WHERE done.task = tasks.id);

-- The output is that of the attempt which completed the task, and every body that a row refers to is there and whole.
INSERT INTO found (name, found, wanted)
SELECT 'output_of_another_attempt', count(*), 0 FROM winner JOIN segue.tasks ON tasks.id = winner.task
WHERE CASE
    WHEN output IS NULL THEN true
    WHEN output NOT LIKE '#%' THEN (output::jsonb ->> 'attempt') IS DISTINCT FROM winner.attempt::text
    ELSE EXISTS (SELECT 1 FROM bodies WHERE hash = decode(substr(split_part(output, ':', 1), 2), 'hex')
        AND bodies.attempt IS DISTINCT FROM winner.attempt::text)
END;
INSERT INTO found (name, found, wanted)
SELECT 'body_missing', count(*), 0 FROM refs
WHERE NOT EXISTS (SELECT 1 FROM bodies WHERE bodies.hash = refs.hash AND bodies.size = refs.size);
INSERT INTO found (name, found, wanted) SELECT 'bodies_outside', count(*), NULL FROM refs WHERE size > 65536;
-- Those of them whose attempt was on its way while nobody reached the object store.
INSERT INTO found (name, found, wanted)
SELECT 'bodies_outside_while_failing', count(*), NULL
FROM winner JOIN segue.tasks ON tasks.id = winner.task JOIN segue.attempts ON attempts.attempt = winner.attempt
WHERE output LIKE '#%' AND split_part(output, ':', 2)::bigint > 65536 AND EXISTS (
    SELECT 1 FROM faults WHERE faults.name = 's3-failing' AND attempts.assigned_at < faults.ended AND attempts.ended_at > faults.began
);

-- The log has no gaps, and attempts are numbered without gaps.
INSERT INTO found (name, found, wanted)
SELECT 'event_gaps', coalesce(sum(gaps), 0), 0 FROM (
    SELECT max(run_seq) - count(DISTINCT run_seq) + count(*) - count(DISTINCT run_seq) + abs(min(run_seq) - 1) AS gaps
    FROM log GROUP BY run
    UNION ALL
    SELECT abs(run_events - (SELECT count(*) FROM segue.events WHERE events.run = tasks.id)) FROM segue.tasks WHERE root IS NULL
    UNION ALL
    SELECT abs(sum(project_events) - (SELECT count(*) FROM segue.events WHERE events.run = '00000000-0000-0000-0000-000000000000'))
    FROM segue.projects
) AS counted;
INSERT INTO found (name, found, wanted)
SELECT 'attempt_gaps', count(*), 0 FROM segue.tasks
WHERE attempts <> (SELECT count(DISTINCT number) FROM segue.attempts AS a WHERE a.task = tasks.id)
    OR attempts <> (SELECT coalesce(max(number), 0) FROM segue.attempts AS a WHERE a.task = tasks.id)
    OR attempts <> (SELECT count(*) FROM given WHERE given.task = tasks.id)
    OR attempts <> (SELECT count(DISTINCT number) FROM given WHERE given.task = tasks.id);

-- Nothing is left over once all is done.
INSERT INTO found (name, found, wanted) SELECT 'attempts_open', count(*), 0 FROM segue.attempts WHERE ending IS NULL OR ended_at IS NULL;
INSERT INTO found (name, found, wanted)
SELECT 'slots_used', coalesce(sum(slots_used), 0) + (SELECT count(*) FROM segue.tasks WHERE held_by IS NOT NULL), 0 FROM segue.agents;
INSERT INTO found (name, found, wanted) SELECT 'letters_left', count(*), 0 FROM segue.letters;
INSERT INTO found (name, found, wanted) SELECT 'duties_left', count(*), 0 FROM segue.duties;
INSERT INTO found (name, found, wanted)
SELECT 'waits_left', count(*), 0 FROM segue.tasks WHERE unmet <> 0 OR open_children <> 0;

-- The counters say what the rows say, and no index is broken.
INSERT INTO found (name, found, wanted)
SELECT 'counters_wrong', count(*), 0
FROM (SELECT sum(s0), sum(s1), sum(s2), sum(s3), sum(s4), sum(s5), sum(s6), sum(s7), sum(s8) FROM segue.counters)
        AS c (s0, s1, s2, s3, s4, s5, s6, s7, s8),
    LATERAL (VALUES (0, s0), (1, s1), (2, s2), (3, s3), (4, s4), (5, s5), (6, s6), (7, s7), (8, s8)) AS counted (state, tasks)
WHERE counted.tasks <> (SELECT count(*) FROM segue.tasks WHERE tasks.state = counted.state);
INSERT INTO found (name, found, wanted) SELECT 'database_errors', count(*), 0 FROM pg_index WHERE NOT (indisvalid AND indisready);

-- From the end of each fault to the first event that shows work going on. Work is always left: some comes in whenever a fault ends.
CREATE TEMP TABLE recovery AS
SELECT number, name, within_s, (went_on - ended) / 1000.0 AS seconds FROM (
    SELECT faults.*, (SELECT min(at) FROM log WHERE kind IN ('assigned', 'started', 'completed') AND at >= faults.ended) AS went_on
    FROM faults
) AS each;
INSERT INTO found (name, found, wanted) SELECT 'faults', count(*), NULL FROM faults;
INSERT INTO found (name, found, wanted) SELECT 'recoveries', count(seconds), count(*) FROM recovery;
INSERT INTO found (name, found, wanted)
SELECT 'recovery_s_p50', round(percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)::numeric, 3), NULL FROM recovery;
INSERT INTO found (name, found, wanted, at_most) SELECT 'recovery_s_max', round(coalesce(max(seconds), 0), 3), 10, true FROM recovery;
INSERT INTO found (name, found, wanted)
SELECT 'recovered_too_late', count(*), 0 FROM recovery WHERE seconds > within_s OR seconds IS NULL;

-- Whose each attempt was: an agent's description names its member. From the end of a fault of one member to its first sign of work.
CREATE TEMP TABLE of_member AS
SELECT attempts.task, attempts.number, attempts.assigned_at, agents.spec::jsonb ->> 'description' AS member
FROM segue.attempts JOIN segue.agents ON agents.instance = attempts.instance;
CREATE INDEX ON of_member (task, number);
CREATE TEMP TABLE worked AS
SELECT member, at FROM log JOIN of_member ON of_member.task = log.task AND of_member.number = (log.data ->> 'number')::int
WHERE kind IN ('started', 'completed', 'attempt_failed', 'waiting');
CREATE INDEX ON worked (member, at);
ANALYZE of_member;
ANALYZE worked;
INSERT INTO found (name, found, wanted)
SELECT 'member_back_s_max', round(coalesce(max((SELECT min(at) FROM worked WHERE member = split_part(victim, '-', 1) AND at >= ended) - ended), 0) / 1000.0, 3), NULL
FROM faults;

-- From the fault that hit a lost attempt to the moment at which it is known to be lost: the first fault of its member that was on while it was on
-- its way, or else of any server; or the moment at which it was given to a member that was not there again yet.
INSERT INTO found (name, found, wanted, at_most)
SELECT 'lost_noticed_s_max', round(coalesce(max(at - greatest(assigned_at, coalesce(
    (SELECT min(began) FROM faults WHERE began <= at AND ended >= assigned_at AND split_part(victim, '-', 1) = member),
    (SELECT min(began) FROM faults WHERE began <= at AND ended >= assigned_at)))), 0) / 1000.0, 3), 60, true
FROM log JOIN of_member ON of_member.task = log.task AND of_member.number = (log.data ->> 'number')::int WHERE kind = 'attempt_lost';

-- For the record.
INSERT INTO found (name, found, wanted)
SELECT 'stood_still_s_max', round(coalesce(max(pause), 0) / 1000.0, 3), NULL
FROM (
    SELECT at - lag(at) OVER moved AS pause, lag(open) OVER moved AS open FROM (
        SELECT cursor, at, kind, sum(CASE kind WHEN 'submitted' THEN 1 WHEN 'completed' THEN -1 ELSE 0 END) OVER (ORDER BY cursor) AS open FROM log
    ) AS counted WHERE kind IN ('submitted', 'assigned', 'started', 'completed') WINDOW moved AS (ORDER BY cursor)
) AS pauses WHERE open > 0;
INSERT INTO found (name, found, wanted) SELECT 'attempts', count(*), NULL FROM given;
INSERT INTO found (name, found, wanted) SELECT 'attempts_lost', count(*), NULL FROM log WHERE kind = 'attempt_lost';
INSERT INTO found (name, found, wanted) SELECT 'late_outcomes', count(*), NULL FROM log WHERE kind = 'late_outcome';
INSERT INTO found (name, found, wanted) SELECT 'events', count(*), NULL FROM log;
INSERT INTO found (name, found, wanted)
SELECT 'database_bytes', sum(pg_total_relation_size(pg_class.oid)), NULL
FROM pg_class WHERE relnamespace = 'segue'::regnamespace AND relkind = 'r';

SELECT name, found, wanted,
    CASE WHEN wanted IS NULL THEN '' WHEN found = wanted OR (at_most AND found <= wanted) THEN 'ok' ELSE 'FAIL' END AS verdict
FROM found ORDER BY row;
