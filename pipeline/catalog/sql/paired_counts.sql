-- Kinds of images of two runs: how many images have how many true names, and of each run how many names among its first
-- $k, and hits. Images without truth are left out.
WITH n_truth AS (
    SELECT image_id, count(*) AS n_truth FROM true_names SEMI JOIN judged USING (image_id) GROUP BY image_id
)
SELECT
    n_truth,
    coalesce(of_a.n_listed, 0) AS n_listed_a,
    coalesce(of_a.n_hits, 0) AS n_hits_a,
    coalesce(of_b.n_listed, 0) AS n_listed_b,
    coalesce(of_b.n_hits, 0) AS n_hits_b,
    count(*) AS n_images
FROM n_truth
LEFT JOIN listed_and_hit($run_a, $k) of_a USING (image_id)
LEFT JOIN listed_and_hit($run_b, $k) of_b USING (image_id)
GROUP BY ALL
ORDER BY ALL;
