-- What could go wrong, done to the database of a run in which nothing did. The line above each statement names what the check has to find:
-- that, and nothing else. Several statements stand together where one alone would leave other traces. What stands before the first name comes before each:
-- a task that is a run of its own with one attempt (one that others need, as that is in more of the check), and one whose first attempt failed.

CREATE TEMP TABLE single AS SELECT id FROM tasks
WHERE root IS NULL AND attempts = 1 AND run_events = 4 AND route = 'agent:quick' AND output NOT LIKE '#%'
ORDER BY EXISTS (SELECT 1 FROM edges WHERE need = id) DESC, id LIMIT 1;
/* It failed by its agent's own word, before the work was done, and went well the second time. */
CREATE TEMP TABLE flaky AS SELECT t.id, e.run FROM events AS e JOIN tasks AS t ON t.id = coalesce(e.task, e.run)
WHERE e.kind = 'attempt_failed' AND e.data::jsonb ->> 'class' = 'rate_limited' AND t.attempts = 2 AND t.lost = 0 LIMIT 1;
-- counters_wrong, lost, tasks
DELETE FROM tasks WHERE id = (SELECT id FROM single);
-- completed, lost
UPDATE tasks SET state = 7 WHERE id = (SELECT id FROM single);
UPDATE counters SET s6 = s6 - 1, s7 = s7 + 1 WHERE shard = (SELECT min(shard) FROM counters);
-- completed, lost, not_terminal
UPDATE tasks SET state = 3 WHERE id = (SELECT id FROM single);
UPDATE counters SET s6 = s6 - 1, s3 = s3 + 1 WHERE shard = (SELECT min(shard) FROM counters);
-- lost
DELETE FROM idempotency WHERE key = 'chaos-2';
-- completed_twice
INSERT INTO events (project, cursor, run, run_seq, task, at, kind, data)
SELECT project, (SELECT max(cursor) + 1 FROM events), run, (SELECT run_events + 1 FROM tasks WHERE id = (SELECT id FROM single)), task, at, kind, data
FROM events WHERE kind = 'completed' AND run = (SELECT id FROM single);
UPDATE tasks SET run_events = run_events + 1 WHERE id = (SELECT id FROM single);
-- completed_without_event
DELETE FROM events WHERE kind = 'completed' AND run = (SELECT id FROM single);
UPDATE tasks SET run_events = run_events - 1 WHERE id = (SELECT id FROM single);
-- rerun_after_completed
INSERT INTO events (project, cursor, run, run_seq, task, at, kind, data)
SELECT project, (SELECT max(cursor) + 1 FROM events), run, (SELECT run_events + 1 FROM tasks WHERE id = (SELECT id FROM single)), task, at, kind,
    data::jsonb || '{"number": 2, "attempt": "00000000-0000-4000-8000-000000000000"}'
FROM events WHERE kind = 'assigned' AND run = (SELECT id FROM single);
INSERT INTO attempts (assigned_at, ended_at, project, number, ending, task, attempt, instance, incarnation, secret_hash)
SELECT assigned_at, ended_at, project, 2, ending, task, '00000000-0000-4000-8000-000000000000', instance, incarnation, secret_hash
FROM attempts WHERE task = (SELECT id FROM single);
UPDATE tasks SET run_events = run_events + 1, attempts = 2 WHERE id = (SELECT id FROM single);
-- stale_accepted
INSERT INTO events (project, cursor, run, run_seq, task, at, kind, data)
SELECT project, (SELECT max(cursor) + 1 FROM events), run, (SELECT run_events + 1 FROM tasks WHERE id = (SELECT run FROM flaky)), task, at, 'started', data
FROM events WHERE kind = 'started' AND run = (SELECT run FROM flaky) AND coalesce(task, run) = (SELECT id FROM flaky) AND (data::jsonb ->> 'number')::int = 1;
UPDATE tasks SET run_events = run_events + 1 WHERE id = (SELECT run FROM flaky);
-- completed_without_work, output_of_another_attempt, rerun_after_completed, stale_accepted
UPDATE events SET data = data::jsonb || '{"number": 1}' WHERE kind = 'completed' AND run = (SELECT run FROM flaky) AND coalesce(task, run) = (SELECT id FROM flaky);
-- assigned_too_soon, ran_too_soon
INSERT INTO edges (need, task, project, order_only)
SELECT late.id, early.id, late.project, false FROM
    (SELECT * FROM tasks WHERE route <> 'group' ORDER BY finished_at DESC LIMIT 1) AS late,
    (SELECT * FROM tasks WHERE route <> 'group' ORDER BY finished_at LIMIT 1) AS early;
-- parent_completed_too_soon
UPDATE tasks SET parent = (SELECT id FROM single)
WHERE id = (SELECT coalesce(task, run) FROM events WHERE kind = 'completed' ORDER BY run_seq DESC LIMIT 1);
-- output_of_another_attempt
UPDATE tasks SET output = '{"attempt":"00000000-0000-0000-0000-000000000000"}' WHERE id = (SELECT id FROM single);
-- output_of_another_attempt
UPDATE tasks SET output = NULL WHERE id = (SELECT id FROM single);
-- output_of_another_attempt
UPDATE tasks SET output = (SELECT min(output) FROM tasks WHERE output LIKE '#%' AND split_part(output, ':', 2)::bigint <= 65536) WHERE id = (SELECT id FROM single);
-- output_of_another_attempt
UPDATE tasks SET output = (SELECT min(output) FROM tasks WHERE output LIKE '#%' AND split_part(output, ':', 2)::bigint > 65536) WHERE id = (SELECT id FROM single);
-- body_missing
DELETE FROM payloads WHERE hash = (SELECT decode(substr(split_part(min(output), ':', 1), 2), 'hex') FROM tasks
    WHERE output LIKE '#%' AND split_part(output, ':', 2)::bigint <= 65536);
-- body_missing
UPDATE payloads SET body = replace(body, 'x', 'y') WHERE hash = (SELECT decode(substr(split_part(min(output), ':', 1), 2), 'hex') FROM tasks
    WHERE output LIKE '#%' AND split_part(output, ':', 2)::bigint <= 65536);
-- body_missing
UPDATE tasks SET input = '#00:70000' WHERE id = (SELECT id FROM single);
-- event_gaps
DELETE FROM events WHERE kind = 'started' AND run = (SELECT id FROM single);
-- event_gaps
UPDATE events SET run_seq = run_seq + 1 WHERE kind = 'completed' AND run = (SELECT id FROM single);
-- event_gaps
UPDATE events SET run_seq = run_seq - 1 WHERE kind = 'completed' AND run = (SELECT id FROM single);
-- event_gaps
UPDATE tasks SET run_events = run_events + 1 WHERE id = (SELECT id FROM single);
-- event_gaps
UPDATE projects SET project_events = project_events + 1;
-- attempt_gaps
DELETE FROM attempts WHERE number = 1 AND task = (SELECT id FROM flaky);
-- attempt_gaps
UPDATE tasks SET attempts = attempts + 1 WHERE id = (SELECT id FROM single);
-- attempts_open
UPDATE attempts SET ending = NULL WHERE task = (SELECT id FROM single);
-- slots_used
UPDATE agents SET slots_used = 1 WHERE instance = (SELECT instance FROM agents LIMIT 1);
-- slots_used
UPDATE tasks SET held_by = id WHERE id = (SELECT id FROM single);
-- letters_left
INSERT INTO letters (project, seq, at, owner) SELECT number, 0, 0, (SELECT id FROM single) FROM projects;
-- duties_left
INSERT INTO duties (project, task, kind) SELECT number, (SELECT id FROM single), 'render' FROM projects;
-- waits_left
UPDATE tasks SET unmet = 1 WHERE id = (SELECT id FROM single);
-- waits_left
UPDATE tasks SET open_children = 1 WHERE id = (SELECT id FROM single);
-- counters_wrong
UPDATE counters SET s1 = s1 + 1 WHERE shard = (SELECT min(shard) FROM counters);
-- database_errors
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'letters_pkey'::regclass;
-- recovered_too_late, recovery_s_max
UPDATE events SET at = at + 20000 WHERE at >= :fault_over;
-- recovered_too_late, recoveries
UPDATE events SET at = :fault_over - 1 WHERE at >= :fault_over;
-- lost_noticed_s_max
UPDATE events SET kind = 'attempt_lost', at = :fault_over + 100000 WHERE kind = 'attempt_failed' AND run = (SELECT run FROM flaky) AND coalesce(task, run) = (SELECT id FROM flaky);
