-- Kinds of images of a run: at each k of $ks, how many images have how many true names, of which how many are found, and
-- listed names, of which how many hit (the macro `hits` says which); by shard where $by_shard. Images without truth are
-- left out.
WITH
n_listed AS (
    FROM listed_counts($run)
),
run_hits AS MATERIALIZED (
    SELECT * FROM hits($run, $min_cosine)
),
found AS (
    SELECT image_id, list(name_rank) AS found_at
    FROM (SELECT image_id, true_name, min(name_rank) AS name_rank FROM run_hits GROUP BY image_id, true_name)
    GROUP BY image_id
),
hitting AS (
    SELECT image_id, list(DISTINCT name_rank) AS hit_at FROM run_hits GROUP BY image_id
),
n_truth AS (
    SELECT shard, image_id, count(*) AS n_truth FROM true_names GROUP BY shard, image_id
),
at_k AS (
    SELECT
        CASE WHEN $by_shard THEN shard END AS shard,
        k,
        n_truth,
        len(list_filter(coalesce(found_at, []), lambda name_rank: name_rank <= k)) AS n_found,
        least(coalesce(n_listed, 0), k) AS n_listed,
        len(list_filter(coalesce(hit_at, []), lambda name_rank: name_rank <= k)) AS n_hits
    FROM n_truth
    LEFT JOIN n_listed USING (image_id)
    LEFT JOIN found USING (image_id)
    LEFT JOIN hitting USING (image_id)
    CROSS JOIN (SELECT unnest($ks) AS k)
)
SELECT shard, k, n_truth, n_found, n_listed, n_hits, count(*) AS n_images
FROM at_k
GROUP BY ALL
ORDER BY ALL;
