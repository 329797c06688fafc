-- An image is the likelier to be drawn, the rarer its rarest name is: the size is one over the number of its images.
CREATE OR REPLACE TEMP TABLE draw_sizes AS
WITH
named AS (
    SELECT DISTINCT image_id, name FROM labels WHERE run = $run AND name IS NOT NULL
),
frequencies AS (
    SELECT name, count(*) AS n_images FROM named GROUP BY name
),
rarest AS (
    SELECT image_id, min(n_images) AS n_images FROM named JOIN frequencies USING (name) GROUP BY image_id
)
SELECT image_id, coalesce(1 / n_images, 0)::DOUBLE AS size
FROM images LEFT JOIN rarest USING (image_id)
WHERE run = $run AND status = 'labelled';
