-- What a run lists for its judged images, each name once an image: how good its best score is, where more is better, and
-- whether the name is true of the image. (Not by an outer join: of that DuckDB keeps all occurrences in memory.)
CREATE OR REPLACE TEMP MACRO occurrences(of_run, lowest_first) AS TABLE
SELECT
    image_id,
    name,
    CASE WHEN lowest_first THEN -lowest_score ELSE highest_score END AS goodness,
    (image_id, name) IN (SELECT (image_id, name) FROM true_names) AS is_hit
FROM listed(of_run);
