-- Labels of each shard by their scores, and the sums of these. A bin is an eighth of a doubling, of scores below 0 as well;
-- what is nearer to 0 than 2 ** -50 shares the middle.
SELECT
    place,
    (sign(score) * greatest(0, floor(8 * log2(greatest(abs(score), 1e-30))) + 401))::INTEGER AS bin,
    count(*) AS n,
    sum(score)::DOUBLE AS score_sum
FROM stored_labels JOIN drift_shards USING (run, shard)
WHERE isfinite(score)
GROUP BY ALL;
