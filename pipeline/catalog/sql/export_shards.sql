-- Shards of the chosen images, and how many of these each holds.
SELECT shard, count(*) AS n_images
FROM images SEMI JOIN chosen USING (image_id)
GROUP BY shard
ORDER BY shard;
