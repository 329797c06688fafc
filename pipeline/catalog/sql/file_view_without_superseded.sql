-- A view as `file_view` makes it, less the shards of compacted files that were labelled again: the table `superseded`
-- lists these.
CREATE VIEW $view AS
SELECT files.* EXCLUDE (filename), $columns
FROM read_parquet(getvariable('$view'), hive_partitioning = false, filename = true) files
ANTI JOIN superseded ON superseded.file = parse_filename(filename) AND superseded.shard = files.shard;
