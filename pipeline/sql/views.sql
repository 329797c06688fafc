-- The store's files as tables. $images and $labels are globs over them, filled in as SQL strings.

-- One row an input sample, labelled or rejected.
CREATE VIEW images AS
SELECT *
FROM read_parquet($images, hive_partitioning = true, hive_types = {'run': VARCHAR});

-- One row a label, best first by rank.
CREATE VIEW stored_labels AS
SELECT *
FROM read_parquet($labels, hive_partitioning = true, hive_types = {'run': VARCHAR});
