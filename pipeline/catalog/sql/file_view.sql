-- A view of the files that a variable lists. $types: of the columns that stand in the files' paths.
CREATE VIEW $view AS
SELECT *
FROM read_parquet(getvariable('$view'), hive_partitioning = true, hive_types = {$types});
