-- Captions of a run's labelled images.
SELECT image_id, shard, caption
FROM images
WHERE run = $run AND status = 'labelled' AND caption IS NOT NULL;
