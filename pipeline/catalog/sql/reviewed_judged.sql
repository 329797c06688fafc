-- Of every reviewed image in one $half: how likely it was to be drawn, for how much it counts, how many names are true of
-- it; and how many of its judged labels are listed and right without thresholds, from the common step on, from each
-- name's own.
WITH n_truth AS (
    SELECT image_id, count(*) AS n_truth FROM true_names GROUP BY image_id
)
SELECT
    probability,
    weight,
    coalesce(n_truth, 0) AS n_truth,
    count(placed.step) AS n_listed_none,
    count(*) FILTER (is_hit) AS n_hits_none,
    count(*) FILTER (placed.step >= $common_step) AS n_listed_common,
    count(*) FILTER (placed.step >= $common_step AND is_hit) AS n_hits_common,
    count(*) FILTER (placed.step >= coalesce(name_steps.step, $common_step)) AS n_listed_own,
    count(*) FILTER (placed.step >= coalesce(name_steps.step, $common_step) AND is_hit) AS n_hits_own
FROM review_weights
LEFT JOIN placed USING (image_id)
LEFT JOIN name_steps USING (name)
LEFT JOIN n_truth USING (image_id)
WHERE image_id & 1 = $half
GROUP BY image_id, probability, weight, n_truth
ORDER BY image_id;
