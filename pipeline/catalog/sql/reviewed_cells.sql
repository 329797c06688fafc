-- Occurrences and hits of each name at each step, of either half of the images, as threshold_cells.sql counts them; each
-- counts for as much as its image. And how often each name is true, alike.
CREATE OR REPLACE TEMP TABLE cells AS
SELECT
    image_id & 1 AS half,
    name,
    step,
    sum(weight) AS n_listed,
    coalesce(sum(weight) FILTER (is_hit), 0) AS n_hits
FROM placed JOIN review_weights USING (image_id)
GROUP BY ALL;

CREATE OR REPLACE TEMP TABLE name_truths AS
SELECT image_id & 1 AS half, name, sum(weight) AS n_truth
FROM true_names JOIN review_weights USING (image_id)
GROUP BY ALL;
