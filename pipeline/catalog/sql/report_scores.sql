-- How many labels have which score: the best label of each image, and all of them.
SELECT
    least(floor(score / $width), $last)::INT * $width AS score_from,
    count(*) FILTER (rank = 1) AS best_labels,
    count(*) AS all_labels
FROM stored_labels
WHERE run = $run AND isfinite(score)
GROUP BY score_from
ORDER BY score_from;
