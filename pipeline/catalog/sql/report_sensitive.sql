-- The sensitive names that labels of the runs $runs have, or that are true of an image.
SELECT DISTINCT name FROM memory.main.labels WHERE sensitive AND list_contains($runs, run)
UNION
SELECT name FROM true_names WHERE list_contains(getvariable('sensitive_names'), name);
