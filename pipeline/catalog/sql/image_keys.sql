-- The keys of the images of a table `asked_images`.
SELECT run, shard, "index", key
FROM images SEMI JOIN asked_images USING (run, shard, "index");
