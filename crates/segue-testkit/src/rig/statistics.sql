-- What PostgreSQL did in this database, and what its log took, as one object.
SELECT json_build_object('workload', 'servers', 'deployment', 'cluster', 'metric', 'postgres',
    'commits', d.xact_commit, 'rollbacks', d.xact_rollback, 'deadlocks', d.deadlocks,
    'rows_inserted', d.tup_inserted, 'rows_updated', d.tup_updated, 'wal_bytes', w.wal_bytes, 'wal_syncs', w.wal_sync)
FROM pg_stat_database AS d, pg_stat_wal AS w WHERE d.datname = current_database();
