-- How often labels of a score are true: tenths of the scores from 0 to 1, over all names of the judged images.
WITH judgements AS (
    SELECT listed.highest_score AS score, true_names.name IS NOT NULL AS is_hit
    FROM listed($run) listed LEFT JOIN true_names USING (image_id, name)
)
SELECT
    least(floor(score * 10), 9)::INT / 10 AS score_from,
    count(*) AS n_listed,
    avg(score::DOUBLE) AS mean_score,
    avg(is_hit::INT) AS hit_share
FROM judgements
GROUP BY score_from
ORDER BY score_from;
