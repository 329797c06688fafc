-- Occurrences and hits of each name at each step, of either half of the images: an image_id is a hash.
CREATE OR REPLACE TEMP TABLE cells AS
SELECT
    image_id & 1 AS half,
    name,
    step_of(goodness) AS step,
    count(*) AS n_listed,
    count(*) FILTER (is_hit) AS n_hits
FROM occurrences($run, $lowest_first)
GROUP BY ALL;
