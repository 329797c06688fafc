-- How often each name is true, of either half of the images.
CREATE OR REPLACE TEMP TABLE name_truths AS
SELECT image_id & 1 AS half, name, count(*) AS n_truth
FROM true_names
GROUP BY ALL;
