-- The store as tables. $images and $labels are globs over the store's files, filled in as SQL strings.

-- One row an input sample, labelled or rejected.
CREATE VIEW images AS
SELECT *
FROM read_parquet($images, hive_partitioning = true, hive_types = {'run': VARCHAR});

-- One row a label, best first by rank.
CREATE VIEW labels AS
SELECT *
FROM read_parquet($labels, hive_partitioning = true, hive_types = {'run': VARCHAR});
