-- The $n most frequent names of the shards that are held against one another, numbered from 0.
CREATE OR REPLACE TEMP TABLE drift_frequent AS
SELECT name, row_number() OVER (ORDER BY n_labels DESC, name) - 1 AS number
FROM (
    SELECT name, sum(n_labels) AS n_labels
    FROM (
        SELECT label, count(*) AS n_labels FROM stored_labels SEMI JOIN drift_shards USING (run, shard) GROUP BY label
    )
    JOIN spellings USING (label)
    WHERE name IS NOT NULL
    GROUP BY name
    ORDER BY n_labels DESC, name
    LIMIT $n
);
