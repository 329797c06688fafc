-- A view of the files that a variable lists.
CREATE VIEW $view AS
SELECT *
FROM read_parquet(getvariable('$view'), hive_partitioning = true, hive_types = {'run': VARCHAR});
