-- What makes each run. $run restricts it to one, NULL means all.
SELECT run, created, source, source_root, model, labelling
FROM runs
WHERE $run IS NULL OR run = $run
ORDER BY created, run;
