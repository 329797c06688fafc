-- The paper's measure at $k: of an image, recall is the mean over its true names of the most similar of its first k names,
-- precision the mean over those names of the most similar true one. An image without labels has 0. Images without truth
-- are left out.
WITH
pairs AS MATERIALIZED (
    SELECT image_id, true_id, listed_id, cosine
    FROM (SELECT image_id, id AS listed_id FROM listed($run) JOIN name_ids USING (name) WHERE name_rank <= $k)
    JOIN (SELECT image_id, id AS true_id FROM true_names JOIN name_ids USING (name)) USING (image_id)
    JOIN similarities USING (true_id, listed_id)
),
recalls AS (
    SELECT image_id, avg(best) AS recall
    FROM (SELECT image_id, true_id, max(cosine) AS best FROM pairs GROUP BY image_id, true_id)
    GROUP BY image_id
),
precisions AS (
    SELECT image_id, avg(best) AS precision
    FROM (SELECT image_id, listed_id, max(cosine) AS best FROM pairs GROUP BY image_id, listed_id)
    GROUP BY image_id
),
per_image AS (
    SELECT
        coalesce(recall, 0) AS recall,
        coalesce(precision, 0) AS precision,
        CASE WHEN recall + precision > 0 THEN 2 * recall * precision / (recall + precision) ELSE 0 END AS f1
    FROM (SELECT DISTINCT image_id FROM true_names)
    LEFT JOIN recalls USING (image_id)
    LEFT JOIN precisions USING (image_id)
)
SELECT measure, avg(value) AS value, coalesce(stddev_samp(value), 0) AS deviation, count(*) AS n_images
FROM (UNPIVOT per_image ON recall, precision, f1 INTO NAME measure VALUE value)
GROUP BY measure
ORDER BY measure;
