-- Where the images that were just drawn stand.
SELECT image_id, shard, index, key, probability
FROM images JOIN drawn_now USING (image_id)
WHERE run = $run
ORDER BY shard, index;
