-- How far it is: tasks, those that have ended, the time of the last event, and what else has to be done with.
SELECT count(*), count(*) FILTER (WHERE state IN (6, 7, 8)), coalesce((SELECT max(cursor) FROM segue.events), 0),
    (SELECT count(*) FROM segue.letters) + (SELECT count(*) FROM segue.duties)
FROM segue.tasks;
