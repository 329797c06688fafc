-- Scores that a threshold can have, as steps from the worst: all that occur, or where they are many, the thousandths of
-- the hits and of the misses. Of many images one in $one_in is enough for these.
CREATE OR REPLACE TEMP TABLE steps AS
WITH quantiles AS (
    SELECT quantile_disc(goodness, list_transform(range(1001), lambda i: i / 1000)) AS goodness
    FROM occurrences($run, $lowest_first)
    WHERE image_id % $one_in = 0
    GROUP BY is_hit
)
SELECT (row_number() OVER (ORDER BY goodness) - 1)::INT AS step, goodness
FROM (SELECT DISTINCT unnest(goodness) AS goodness FROM quantiles);
