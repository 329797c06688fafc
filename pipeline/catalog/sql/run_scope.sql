-- What a condition sees: the run of the variable `scope_run` alone, under the names that a store's views have. Macros
-- find these views too. $labels: `labels`, or those of them that reach thresholds, `confident_labels`.

CREATE TEMP VIEW images AS
SELECT *
FROM memory.main.images
WHERE run = getvariable('scope_run');

CREATE TEMP VIEW labels AS
SELECT *
FROM memory.main.$labels
WHERE run = getvariable('scope_run');

CREATE TEMP VIEW truth AS
SELECT *
FROM memory.main.truth
WHERE run = getvariable('scope_run');
