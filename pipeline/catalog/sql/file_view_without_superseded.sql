-- A view of the files that a variable lists, less the shards of compacted files that were labelled again: the table
-- `superseded` lists these. $types: of the columns that stand in the files' paths.
CREATE VIEW $view AS
SELECT files.* EXCLUDE (filename)
FROM read_parquet(
    getvariable('$view'), hive_partitioning = true, hive_types = {$types}, filename = true
) files
ANTI JOIN superseded ON superseded.file = parse_filename(filename) AND superseded.shard = files.shard;
