-- What each image adds to the expected number of drawn ones: half of it evenly, so that no image is so unlikely that its
-- weight drowns all others, half by its size.
CREATE OR REPLACE TEMP TABLE draw_shares AS
SELECT
    image_id,
    0.5 / count(*) OVER () + CASE
        WHEN sum(size) OVER () > 0 THEN 0.5 * size / sum(size) OVER ()
        ELSE 0.5 / count(*) OVER ()
    END AS share
FROM draw_sizes;
