-- The average precision of each name that is true of any image: over images in the order of their scores, where equal
-- scores stand together. $lower_is_better: of the ranking's scores. Images without truth are left out.
WITH
judged AS (
    SELECT
        listed.name,
        CASE WHEN $lower_is_better THEN -lowest_score ELSE highest_score END AS goodness,
        true_names.image_id IS NOT NULL AS is_hit
    FROM listed($run) AS listed LEFT JOIN true_names USING (image_id, name)
    SEMI JOIN true_names AS supported ON supported.name = listed.name
),
curves AS (
    SELECT
        name,
        is_hit,
        avg(is_hit::INT) OVER (PARTITION BY name ORDER BY goodness DESC RANGE UNBOUNDED PRECEDING) AS precision_so_far
    FROM judged
),
found AS (
    SELECT name, sum(precision_so_far) FILTER (is_hit) AS precision_sum FROM curves GROUP BY name
)
SELECT name, coalesce(precision_sum, 0) / n_truth AS average_precision
FROM (SELECT name, count(*) AS n_truth FROM true_names GROUP BY name) LEFT JOIN found USING (name)
ORDER BY n_truth DESC, name;
