-- Of the images that a file of reviews speaks of: how many there are, how many the run $run has, and how many its samples.
SELECT
    count(*) AS n_images,
    count(*) FILTER (image_id IN (SELECT image_id FROM images WHERE run = $run)) AS n_known,
    count(*) FILTER (image_id IN (SELECT image_id FROM drawn WHERE run = $run)) AS n_drawn
FROM (SELECT DISTINCT image_id FROM read_reviews);
