-- Given labels of a run's labelled images.
CREATE OR REPLACE TEMP TABLE true_labels AS
SELECT image_id, shard, unnest(truth) AS label
FROM images
WHERE run = $run AND status = 'labelled' AND truth IS NOT NULL;
