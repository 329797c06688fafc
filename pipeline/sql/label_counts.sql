-- Each name of a run: images where it is true, where it is among the first $k names, and where it is both; and its
-- average precision, over images in the order of their scores, where equal scores stand together.
-- $lower_is_better: of the ranking's scores. Images without truth are left out.
WITH
listed AS (
    SELECT
        image_id,
        name,
        place,
        CASE WHEN $lower_is_better THEN -lowest_score ELSE highest_score END AS goodness
    FROM listed($run)
),
judged AS (
    SELECT listed.*, true_names.image_id IS NOT NULL AS is_hit
    FROM listed LEFT JOIN true_names USING (image_id, name)
),
curves AS (
    SELECT
        name,
        place,
        is_hit,
        avg(is_hit::INT) OVER (PARTITION BY name ORDER BY goodness DESC RANGE UNBOUNDED PRECEDING) AS precision_so_far
    FROM judged
),
found AS (
    SELECT
        name,
        count(*) FILTER (place <= $k) AS n_listed,
        count(*) FILTER (is_hit AND place <= $k) AS n_hits,
        sum(precision_so_far) FILTER (is_hit) AS precision_sum
    FROM curves
    GROUP BY name
),
supported AS (
    SELECT name, count(*) AS n_truth FROM true_names GROUP BY name
)
SELECT
    name,
    coalesce(n_truth, 0) AS n_truth,
    coalesce(n_listed, 0) AS n_listed,
    coalesce(n_hits, 0) AS n_hits,
    CASE WHEN n_truth > 0 THEN coalesce(precision_sum, 0) / n_truth END AS average_precision
FROM supported FULL JOIN found USING (name)
WHERE n_truth > 0 OR n_listed > 0
ORDER BY n_truth DESC NULLS LAST, name;
