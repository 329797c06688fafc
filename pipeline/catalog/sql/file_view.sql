-- A view of the files that a variable lists. $columns: those that are told by a file's own folders. DuckDB's
-- hive_partitioning would also make columns of `label=cat` or `env=prod` in the path of the store.
CREATE VIEW $view AS
SELECT * EXCLUDE (filename), $columns
FROM read_parquet(getvariable('$view'), hive_partitioning = false, filename = true);
