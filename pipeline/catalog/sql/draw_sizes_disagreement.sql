-- An image that two runs have labelled is the likelier to be drawn, the fewer of its first ten names they share.
CREATE OR REPLACE TEMP TABLE draw_sizes AS
WITH
first_names AS (
    SELECT DISTINCT run, image_id, name
    FROM labels
    WHERE run IN ($run, $against) AND rank <= 10 AND name IS NOT NULL
),
unions AS (
    SELECT image_id, count(DISTINCT name) AS n_names, count(*) - count(DISTINCT name) AS n_shared
    FROM first_names
    GROUP BY image_id
)
SELECT image_id, coalesce(1 - n_shared / n_names, 0)::DOUBLE AS size
FROM images LEFT JOIN unions USING (image_id)
WHERE run = $run AND status = 'labelled'
AND image_id IN (SELECT image_id FROM images WHERE run = $against AND status = 'labelled');
