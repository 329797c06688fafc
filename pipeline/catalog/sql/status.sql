-- What each run holds. $run restricts it to one, NULL means all.
WITH
per_run AS (
    SELECT
        run,
        count(DISTINCT shard) AS n_shards,
        count(*) AS n_images,
        count(*) FILTER (status = 'labelled') AS n_labelled,
        count(*) FILTER (status = 'rejected') AS n_rejected,
        sum(n_labels) AS n_labels,
        sum(n_unfinished) AS n_unfinished,
        count(*) FILTER (flat) AS n_flat,
        count(*) FILTER (reused_from IS NOT NULL AND reused_distance IS NULL AND status = 'labelled') AS n_reused,
        count(*) FILTER (reused_distance IS NOT NULL) AS n_near_duplicates
    FROM images
    WHERE $run IS NULL OR run = $run
    GROUP BY run
),
stored AS (
    SELECT run, count(*) AS n_label_rows
    FROM written_labels
    WHERE $run IS NULL OR run = $run
    GROUP BY run
)
SELECT per_run.*, coalesce(n_label_rows, 0) AS n_label_rows
FROM per_run LEFT JOIN stored USING (run)
ORDER BY run;
