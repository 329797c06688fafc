-- Each name among the first $k of either run: on how many images both list it, only the first (lost) or only the second
-- (gained), and how far its score went where both do.
WITH
of_a AS (
    SELECT image_id, name, highest_score AS score FROM listed($run_a) WHERE name_rank <= $k
),
of_b AS (
    SELECT image_id, name, highest_score AS score FROM listed($run_b) WHERE name_rank <= $k
)
SELECT
    name,
    count(*) FILTER (of_a.score IS NOT NULL AND of_b.score IS NOT NULL) AS n_both,
    count(*) FILTER (of_b.score IS NULL) AS n_lost,
    count(*) FILTER (of_a.score IS NULL) AS n_gained,
    sum(of_b.score::DOUBLE - of_a.score) AS score_shift
FROM of_a FULL JOIN of_b USING (image_id, name)
GROUP BY name
ORDER BY n_lost + n_gained DESC, name;
