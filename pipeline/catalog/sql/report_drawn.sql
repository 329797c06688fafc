-- Draws $n of the chosen images from few shards, since each has to be read at the source: from as many as $n_shards that
-- are drawn first, and from more only where those hold too few. Draws depend on names, ids and the seed, on nothing else.
CREATE OR REPLACE TEMP TABLE chosen AS
WITH
held AS (
    SELECT image_id, shard FROM images SEMI JOIN chosen USING (image_id)
),
ordered AS (
    SELECT
        shard,
        row_number() OVER by_digest AS number,
        coalesce(sum(count(*)) OVER (by_digest ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS n_before
    FROM held
    GROUP BY shard
    WINDOW by_digest AS (ORDER BY md5(concat(shard, ' ', $seed)), shard)
),
drawn AS (
    SELECT shard FROM ordered WHERE number <= $n_shards OR n_before < $n
)
SELECT image_id
FROM held SEMI JOIN drawn USING (shard)
ORDER BY md5(concat(image_id, ' ', $seed)), image_id
LIMIT $n;
