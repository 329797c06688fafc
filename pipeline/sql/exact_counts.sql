-- Kinds of images of a run: at each k of $ks, how many images have how many true names, listed names and hits; by shard
-- where $by_shard. Images without truth are left out.
WITH
listed AS (
    SELECT image_id, name, place FROM listed($run)
),
n_listed AS (
    SELECT image_id, count(*) AS n_listed FROM listed GROUP BY image_id
),
hits AS (
    SELECT image_id, list(place) AS places FROM listed JOIN true_names USING (image_id, name) GROUP BY image_id
),
n_truth AS (
    SELECT shard, image_id, count(*) AS n_truth FROM true_names GROUP BY shard, image_id
),
at_k AS (
    SELECT
        CASE WHEN $by_shard THEN shard END AS shard,
        k,
        n_truth,
        least(coalesce(n_listed, 0), k) AS n_listed,
        len(list_filter(coalesce(places, []), lambda place: place <= k)) AS n_hits
    FROM n_truth
    LEFT JOIN n_listed USING (image_id)
    LEFT JOIN hits USING (image_id)
    CROSS JOIN (SELECT unnest($ks) AS k)
)
SELECT shard, k, n_truth, n_hits AS n_found, n_listed, n_hits, count(*) AS n_images
FROM at_k
GROUP BY ALL
ORDER BY ALL;
