-- The $n images whose first $k names have the lowest F1; of equal ones those with the most missing names first.
WITH
first_k AS (
    SELECT image_id, name, name_rank FROM listed($run) WHERE name_rank <= $k
),
of_image AS (
    SELECT image_id, count(*) AS n_listed, list(name ORDER BY name_rank) AS listed FROM first_k GROUP BY image_id
),
of_truth AS (
    SELECT
        image_id,
        count(*) AS n_truth,
        count(first_k.name) AS n_hits,
        list(true_names.name ORDER BY true_names.name) FILTER (first_k.name IS NULL) AS missed
    FROM true_names LEFT JOIN first_k USING (image_id, name)
    GROUP BY image_id
)
SELECT
    shard,
    key,
    n_truth,
    n_hits,
    2 * n_hits / (n_truth + coalesce(n_listed, 0)) AS f1,
    coalesce(missed, []) AS missed,
    coalesce(listed, []) AS listed
FROM of_truth LEFT JOIN of_image USING (image_id)
JOIN (SELECT image_id, shard, key FROM images WHERE run = $run) USING (image_id)
ORDER BY f1, n_truth - n_hits DESC, shard, key
LIMIT $n;
