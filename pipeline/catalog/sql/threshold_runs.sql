-- What decides which runs' scores thresholds are for.
SELECT run, model_fingerprint, labelling
FROM runs
ORDER BY run;
