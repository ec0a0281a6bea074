-- Where PostgreSQL spent its time, the dearest statements first. One object a line.
SELECT json_build_object('workload', 'servers', 'deployment', 'cluster', 'metric', 'statement',
    'calls', s.calls, 'total_ms', round(s.total_exec_time::numeric, 1),
    'mean_ms', round(s.mean_exec_time::numeric, 3), 'rows', s.rows,
    'blocks', s.shared_blks_hit + s.shared_blks_read, 'wal_bytes', s.wal_bytes,
    'text', left(regexp_replace(s.query, '\s+', ' ', 'g'), 160))
FROM pg_stat_statements AS s ORDER BY s.total_exec_time DESC LIMIT 24;
