-- A view of the files that a variable lists. The run is told by a file's own folder: DuckDB's hive_partitioning would
-- also make columns of `label=cat` or `env=prod` in the path of the store.
CREATE VIEW $view AS
SELECT * EXCLUDE (filename), regexp_extract(filename, '/run=([^/]*)/[^/]*$$', 1) AS run
FROM read_parquet(getvariable('$view'), hive_partitioning = false, filename = true);
