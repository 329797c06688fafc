-- The shards of runs.
SELECT DISTINCT run, shard
FROM images
WHERE run IN (SELECT unnest($runs))
ORDER BY run, shard;
