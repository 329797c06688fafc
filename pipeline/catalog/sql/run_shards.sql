-- The shards of runs; $runs NULL takes those of all.
SELECT DISTINCT run, shard
FROM images
WHERE $runs IS NULL OR run IN (SELECT unnest($runs::VARCHAR[]))
ORDER BY run, shard;
