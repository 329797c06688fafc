-- Counts of the images of each shard that is held against others.
SELECT
    place,
    count(*) AS n_images,
    count(*) FILTER (status = 'rejected') AS n_rejected,
    count(*) FILTER (status = 'labelled') AS n_labelled,
    coalesce(sum(n_unfinished), 0)::BIGINT AS n_unfinished,
    coalesce(sum(n_labels) + sum(n_unfinished), 0)::BIGINT AS n_branches,
    coalesce(sum(width::BIGINT * height), 0)::DOUBLE AS pixel_sum
FROM images JOIN drift_shards USING (run, shard)
GROUP BY place
ORDER BY place;
