-- Images of each shard by their pixels, in eighths of a doubling.
SELECT place, floor(8 * log2(width::BIGINT * height))::INTEGER AS bin, count(*) AS n
FROM images JOIN drift_shards USING (run, shard)
WHERE width > 0 AND height > 0
GROUP BY ALL;
