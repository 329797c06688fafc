-- Rejected samples of a run by class, with the first three as examples.
SELECT
    stage,
    error,
    count(*) AS n_rejected,
    arg_min({'sample': shard || '/' || key, 'message': message}, (shard, index), 3) AS examples
FROM rejects
WHERE run = $run
GROUP BY stage, error
ORDER BY n_rejected DESC, error;
