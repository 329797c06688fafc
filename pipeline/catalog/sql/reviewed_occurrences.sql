-- What a run lists for its judged images, as `occurrences` of threshold_occurrences.sql, as far as anybody judged it.
CREATE OR REPLACE TEMP MACRO occurrences(of_run, lowest_first) AS TABLE
SELECT
    image_id,
    name,
    CASE WHEN lowest_first THEN -lowest_score ELSE highest_score END AS goodness,
    is_true AS is_hit
FROM listed(of_run) JOIN reviewed_names USING (image_id, name);
