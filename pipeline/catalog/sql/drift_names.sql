-- Labels of each shard by name: by the number of the frequent ones, all others together under -1.
WITH
counted AS (
    SELECT place, label, count(*) AS n_labels
    FROM stored_labels JOIN drift_shards USING (run, shard)
    GROUP BY ALL
)
SELECT place, coalesce(number, -1)::INTEGER AS bin, sum(n_labels)::BIGINT AS n
FROM counted JOIN spellings USING (label) LEFT JOIN drift_frequent USING (name)
WHERE name IS NOT NULL
GROUP BY ALL;
