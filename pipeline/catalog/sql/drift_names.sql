-- Labels of each shard by name: the $n most frequent names of all these shards, and the others together (null).
WITH
counted AS (
    SELECT place, label, count(*) AS n_labels
    FROM stored_labels JOIN drift_shards USING (run, shard)
    GROUP BY ALL
),
named AS (
    SELECT place, name, sum(n_labels)::BIGINT AS n_labels
    FROM counted JOIN spellings USING (label)
    WHERE name IS NOT NULL
    GROUP BY ALL
),
frequent AS (
    SELECT name FROM named GROUP BY name ORDER BY sum(n_labels) DESC, name LIMIT $n
)
SELECT place, frequent.name, sum(n_labels)::BIGINT AS n
FROM named LEFT JOIN frequent USING (name)
GROUP BY ALL;
