-- Recounts a chaos run from what it left behind, and from nothing else: the database, and three text files.
--
--     cd FOLDER && sqlite3 -readonly .segue/segue.db < chaos-check.sql
--
-- `segue chaos` runs the same statements at its end, and `segue chaos --check FOLDER` runs them again. They share no code
-- with the engine and the store; they only read. Each row of the result is: name | found | wanted | verdict.
--
-- The files, with a blank between the columns:
--   submitted.txt  idempotency key, and the number of tasks that must come of it; written once the submit was answered
--   journal.txt    task, attempt, and `start`, `end` or `fail`; written by the agents themselves, in the order of the events
--   lives.txt      number of a life of the node, start and end in milliseconds since 1970, and how it ended
--   blobs.txt      the name of each file in `.segue/blobs` whose content has the hash that its name says

.bail on
.mode list
.separator " "
CREATE TEMP TABLE submitted (key TEXT, tasks INTEGER);
CREATE TEMP TABLE journal (task TEXT, attempt TEXT, what TEXT);
CREATE TEMP TABLE lives (number INTEGER, started INTEGER, ended INTEGER, how TEXT);
CREATE TEMP TABLE blobs (hash TEXT);
.import submitted.txt submitted
.import journal.txt journal
.import lives.txt lives
.import blobs.txt blobs

-- The log with ids as texts of 32 digits. A NULL task is the root of the run.
CREATE TEMP TABLE log AS
SELECT cursor, lower(hex(run)) AS run, run_seq, lower(hex(coalesce(task, run))) AS task, at, kind, data FROM main.events;
CREATE INDEX temp.log_task ON log (task, kind);
CREATE INDEX temp.log_at ON log (at);

CREATE TEMP TABLE done AS
SELECT task, run_seq, cursor, at, data ->> '$.number' AS number FROM log WHERE kind = 'completed';
CREATE INDEX temp.done_task ON done (task);

CREATE TEMP TABLE given AS
SELECT task, run_seq, cursor, data ->> '$.number' AS number, replace(data ->> '$.attempt', '-', '') AS attempt
FROM log WHERE kind = 'assigned';
CREATE INDEX temp.given_task ON given (task, number);
CREATE INDEX temp.given_attempt ON given (attempt);

-- What the agents really did. `line` is the order in which it happened.
CREATE TEMP TABLE ran AS
SELECT rowid AS line, replace(task, '-', '') AS task, replace(attempt, '-', '') AS attempt, what FROM journal;
CREATE INDEX temp.ran_task ON ran (task, what);
CREATE INDEX temp.ran_attempt ON ran (attempt, what);

-- The attempt that completed each task, and when its agent had done the work. Groups have none.
CREATE TEMP TABLE winner AS
SELECT done.task, done.number, given.attempt,
    (SELECT max(line) FROM ran WHERE ran.attempt = given.attempt AND what = 'end') AS end_line
FROM done JOIN given ON given.task = done.task AND given.number = done.number;
CREATE INDEX temp.winner_task ON winner (task);

CREATE TEMP TABLE runs AS
SELECT coalesce(root, id) AS root, count(*) AS tasks, sum(state = 6) AS completed FROM main.tasks GROUP BY 1;
CREATE INDEX temp.runs_root ON runs (root);

CREATE TEMP TABLE found (name TEXT, found NUMERIC, wanted NUMERIC, at_most INTEGER DEFAULT 0);

-- Nothing is lost, nothing is there that nobody submitted.
INSERT INTO found SELECT 'tasks', count(*), (SELECT sum(tasks) FROM submitted), 0 FROM main.tasks;
INSERT INTO found SELECT 'completed', ifnull(sum(state = 6), 0), count(*), 0 FROM main.tasks;
INSERT INTO found
SELECT 'lost', ifnull(sum(max(0, submitted.tasks - ifnull(runs.completed, 0))), 0), 0, 0
FROM submitted LEFT JOIN main.idempotency ON idempotency.key = submitted.key LEFT JOIN runs ON runs.root = idempotency.task;

-- Each task completed exactly once.
INSERT INTO found
SELECT 'completed_twice', count(*), 0, 0 FROM (SELECT task FROM done GROUP BY task HAVING count(*) > 1);
INSERT INTO found
SELECT 'completed_without_event', count(*), 0, 0 FROM main.tasks
WHERE state = 6 AND NOT EXISTS (SELECT 1 FROM done WHERE done.task = lower(hex(tasks.id)));

-- What is completed is not run again: by the order of the log, by the number of the attempt, and by the order in which the
-- agents wrote into the journal.
INSERT INTO found
SELECT 'rerun_after_completed', count(*), 0, 0 FROM (
    SELECT given.task FROM given JOIN done ON done.task = given.task WHERE given.run_seq > done.run_seq
    UNION
    SELECT ran.task FROM ran JOIN given ON given.attempt = ran.attempt JOIN done ON done.task = given.task
    WHERE ran.what = 'start' AND given.number > done.number
    UNION
    SELECT ran.task FROM ran JOIN winner ON winner.task = ran.task WHERE ran.what = 'start' AND ran.line > winner.end_line
);

-- What ran had been committed before; no attempt ran twice; what is said to be done was done.
INSERT INTO found
SELECT 'ran_unassigned', count(*), 0, 0 FROM ran
WHERE what = 'start' AND NOT EXISTS (SELECT 1 FROM given WHERE given.attempt = ran.attempt AND given.task = ran.task);
INSERT INTO found
SELECT 'attempt_ran_twice', count(*), 0, 0 FROM (SELECT attempt FROM ran WHERE what = 'start' GROUP BY attempt HAVING count(*) > 1);
INSERT INTO found SELECT 'completed_without_work', count(*), 0, 0 FROM winner WHERE end_line IS NULL;

-- A task came after what it needs, and a parent after its children.
INSERT INTO found
SELECT 'assigned_too_soon', count(*), 0, 0 FROM main.edges
WHERE ifnull((SELECT min(cursor) FROM given WHERE given.task = lower(hex(edges.task))), 0)
    < ifnull((SELECT min(cursor) FROM done WHERE done.task = lower(hex(edges.need))), 0);
INSERT INTO found
SELECT 'ran_too_soon', count(*), 0, 0 FROM main.edges
WHERE (SELECT min(line) FROM ran WHERE ran.task = lower(hex(edges.task)) AND what = 'start')
    < (SELECT end_line FROM winner WHERE winner.task = lower(hex(edges.need)));
INSERT INTO found
SELECT 'parent_completed_too_soon', count(*), 0, 0 FROM main.tasks
WHERE parent IS NOT NULL AND (SELECT max(cursor) FROM done WHERE done.task = lower(hex(tasks.parent)))
    < (SELECT max(cursor) FROM done WHERE done.task = lower(hex(tasks.id)));

-- The output is that of the attempt which completed the task, and its body is there.
INSERT INTO found
SELECT 'output_of_another_attempt', count(*), 0, 0
FROM winner JOIN main.tasks ON lower(hex(tasks.id)) = winner.task
    LEFT JOIN main.payloads ON payloads.hash = substr(tasks.output, 1, 32) AND typeof(tasks.output) = 'blob'
WHERE replace(iif(typeof(tasks.output) = 'text', tasks.output, payloads.body) ->> '$.attempt', '-', '') <> winner.attempt;
INSERT INTO found
SELECT 'body_missing', count(*), 0, 0 FROM main.tasks
WHERE typeof(output) = 'blob'
    AND NOT EXISTS (SELECT 1 FROM main.payloads WHERE payloads.hash = substr(output, 1, 32))
    AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.hash = lower(hex(substr(output, 1, 32))));

-- The log has no gaps, and attempts are numbered without gaps.
INSERT INTO found
SELECT 'event_gaps', ifnull(sum(gaps), 0), 0, 0 FROM (
    SELECT max(run_seq) - count(DISTINCT run_seq) + count(*) - count(DISTINCT run_seq) + abs(min(run_seq) - 1) AS gaps
    FROM log GROUP BY run
    UNION ALL
    SELECT abs(run_events - (SELECT count(*) FROM main.events WHERE events.run = tasks.id)) FROM main.tasks WHERE root IS NULL
    UNION ALL
    SELECT abs(project_events - (SELECT count(*) FROM main.events WHERE events.run = zeroblob(16))) FROM main.counters
);
INSERT INTO found
SELECT 'attempt_gaps', count(*), 0, 0 FROM main.tasks
WHERE attempts <> (SELECT count(DISTINCT number) FROM main.attempts AS a WHERE a.task = tasks.id)
    OR attempts <> (SELECT ifnull(max(number), 0) FROM main.attempts AS a WHERE a.task = tasks.id)
    OR attempts <> (SELECT count(*) FROM given WHERE given.task = lower(hex(tasks.id)))
    OR attempts <> (SELECT count(DISTINCT number) FROM given WHERE given.task = lower(hex(tasks.id)));

-- Nothing is left over once all is done.
INSERT INTO found SELECT 'attempts_open', count(*), 0, 0 FROM main.attempts WHERE ending IS NULL OR ended_at IS NULL;
INSERT INTO found SELECT 'slots_used', ifnull(sum(slots_used), 0) + (SELECT count(*) FROM main.tasks WHERE held_by IS NOT NULL), 0, 0 FROM main.agents;
INSERT INTO found SELECT 'letters_left', count(*), 0, 0 FROM main.letters;
INSERT INTO found SELECT 'duties_left', count(*), 0, 0 FROM main.duties;
INSERT INTO found SELECT 'waits_left', ifnull(sum(unmet <> 0 OR open_children <> 0), 0), 0, 0 FROM main.tasks;

-- The counters say what the rows say, and the file is sound.
INSERT INTO found
SELECT 'counters_wrong', ifnull(sum(counted.value <> (SELECT count(*) FROM main.tasks WHERE state = counted.key)), 0), 0, 0
FROM main.counters, json_each(counters.states) AS counted;
INSERT INTO found
SELECT 'database_errors', count(*), 0, 0 FROM pragma_integrity_check WHERE integrity_check <> 'ok';

-- From the start of a life to the first event that shows work going on, where work was left; a life that was killed sooner
-- counts for as long as it lasted, if that was longer than it may take.
CREATE TEMP TABLE recovery AS
SELECT number, (ifnull(went_on, iif(ended - started > 2000, ended, NULL)) - started) / 1000.0 AS seconds FROM (
    SELECT number, started, ended,
        (SELECT min(at) FROM log WHERE kind IN ('assigned', 'started', 'completed') AND at > lives.started AND at <= lives.ended) AS went_on
    FROM lives
    WHERE number > 1 AND (SELECT count(*) FROM log WHERE kind = 'submitted' AND at < lives.started)
        > (SELECT count(*) FROM done WHERE at < lives.started)
);
DELETE FROM recovery WHERE seconds IS NULL;
INSERT INTO found SELECT 'recoveries', count(*), NULL, 0 FROM recovery;
INSERT INTO found
SELECT 'recovery_s_p50', seconds, NULL, 0 FROM recovery ORDER BY seconds LIMIT 1 OFFSET (SELECT count(*) / 2 FROM recovery);
INSERT INTO found SELECT 'recovery_s_max', ifnull(max(seconds), 0), 2.0, 1 FROM recovery;

-- For the record.
INSERT INTO found SELECT 'attempts', count(*), NULL, 0 FROM given;
INSERT INTO found SELECT 'attempts_lost', count(*), NULL, 0 FROM log WHERE kind = 'attempt_lost';
INSERT INTO found SELECT 'events', count(*), NULL, 0 FROM log;

.separator " | "
SELECT name, found, wanted,
    CASE WHEN wanted IS NULL THEN '' WHEN found = wanted OR (at_most AND found <= wanted) THEN 'ok' ELSE 'FAIL' END AS verdict
FROM found ORDER BY rowid;
