-- Rejected samples of a run by class, with one example each.
SELECT stage, error, count(*) AS n_rejected, any_value(shard || '/' || key) AS example, any_value(message) AS message
FROM rejects
WHERE run = $run
GROUP BY stage, error
ORDER BY n_rejected DESC, error;
