-- The newest job of a run.
SELECT *
FROM jobs
WHERE run = $run
ORDER BY started DESC
LIMIT 1;
