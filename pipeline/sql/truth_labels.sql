-- Given labels of a run's labelled images.
SELECT image_id, shard, unnest(truth) AS label
FROM images
WHERE run = $run AND status = 'labelled' AND truth IS NOT NULL;
