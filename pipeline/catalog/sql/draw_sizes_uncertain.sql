-- An image is the likelier to be drawn, the more of its labels may or may not be true: the sum of p (1 - p) over its labels.
CREATE OR REPLACE TEMP TABLE draw_sizes AS
WITH
doubts AS (
    SELECT image_id, sum(score * greatest(0, 1 - score)) AS size FROM labels WHERE run = $run GROUP BY image_id
)
SELECT image_id, coalesce(size, 0)::DOUBLE AS size
FROM images LEFT JOIN doubts USING (image_id)
WHERE run = $run AND status = 'labelled';
