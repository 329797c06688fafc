-- Images of a run by what people call them: key or SHARD#KEY.
SELECT *
FROM images
WHERE run = $run AND (key = $name OR shard || '#' || key = $name)
ORDER BY shard, index;
