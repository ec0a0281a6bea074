-- What could go wrong, done to the database of a run in which nothing did. The line above each statement names the finding
-- that has to notice it.

-- tasks
DELETE FROM tasks WHERE n = (SELECT max(n) FROM tasks);
-- completed
UPDATE tasks SET state = 7 WHERE n = 3;
-- lost
UPDATE tasks SET state = 8 WHERE n = 3;
-- lost
DELETE FROM idempotency WHERE key = 'chaos-2';
-- completed_twice
INSERT INTO events (project, run, run_seq, task, at, kind, data)
SELECT project, run, run_seq + 1000, task, at, kind, data FROM events WHERE kind = 'completed' LIMIT 1;
-- completed_without_event
DELETE FROM events WHERE cursor = (SELECT max(cursor) FROM events WHERE kind = 'completed');
-- rerun_after_completed
INSERT INTO events (project, run, run_seq, task, at, kind, data)
SELECT project, run, run_seq + 1000, task, at, kind, data FROM events WHERE kind = 'assigned' LIMIT 1;
-- assigned_too_soon
INSERT INTO edges (need, task, project, order_only)
SELECT late.id, early.id, 1, 0 FROM tasks AS early, tasks AS late
WHERE late.n = (SELECT n FROM tasks WHERE route <> 'group' ORDER BY finished_at DESC LIMIT 1)
    AND early.n = (SELECT n FROM tasks WHERE route <> 'group' ORDER BY finished_at LIMIT 1);
-- parent_completed_too_soon
UPDATE tasks SET parent = (SELECT id FROM tasks ORDER BY finished_at LIMIT 1)
WHERE n = (SELECT n FROM tasks ORDER BY finished_at DESC LIMIT 1);
-- output_of_another_attempt
UPDATE tasks SET output = '{"attempt":"00000000-0000-0000-0000-000000000000"}'
WHERE n = (SELECT n FROM tasks WHERE route = 'agent:quick' LIMIT 1);
-- body_missing
DELETE FROM payloads;
-- event_gaps
DELETE FROM events WHERE kind = 'unblocked' AND cursor = (SELECT min(cursor) FROM events WHERE kind = 'unblocked');
-- event_gaps
UPDATE counters SET project_events = project_events + 1;
-- attempt_gaps
DELETE FROM attempts WHERE number = 1 AND task = (SELECT min(task) FROM attempts);
-- attempts_open
UPDATE attempts SET ending = NULL WHERE task = (SELECT min(task) FROM attempts);
-- slots_used
UPDATE agents SET slots_used = 1;
-- letters_left
INSERT INTO letters (project, body) VALUES (1, '{}');
-- duties_left
INSERT INTO duties (task, kind, project) VALUES (zeroblob(16), 'render', 1);
-- waits_left
UPDATE tasks SET unmet = 1 WHERE n = 3;
-- counters_wrong
UPDATE counters SET states = '[1,0,0,0,0,0,0,0,0]';
-- recovery_s_max
UPDATE events SET at = at + 5000 WHERE at > :started;
