-- Kinds of images of two runs: how many images have how many true names, and of each run how many names among its first
-- $k, and hits. Images without truth are left out.
WITH
of_a AS (
    SELECT image_id, count(*) AS n_listed, count(true_names.name) AS n_hits
    FROM (SELECT * FROM listed($run_a) WHERE place <= $k) LEFT JOIN true_names USING (image_id, name)
    GROUP BY image_id
),
of_b AS (
    SELECT image_id, count(*) AS n_listed, count(true_names.name) AS n_hits
    FROM (SELECT * FROM listed($run_b) WHERE place <= $k) LEFT JOIN true_names USING (image_id, name)
    GROUP BY image_id
),
n_truth AS (
    SELECT image_id, count(*) AS n_truth FROM true_names GROUP BY image_id
)
SELECT
    n_truth,
    coalesce(of_a.n_listed, 0) AS n_listed_a,
    coalesce(of_a.n_hits, 0) AS n_hits_a,
    coalesce(of_b.n_listed, 0) AS n_listed_b,
    coalesce(of_b.n_hits, 0) AS n_hits_b,
    count(*) AS n_images
FROM n_truth LEFT JOIN of_a USING (image_id) LEFT JOIN of_b USING (image_id)
GROUP BY ALL
ORDER BY ALL;
