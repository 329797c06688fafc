-- What is listed and right in one $half of the images: without thresholds, from the common step on, from each name's own.
SELECT
    sum(n_listed) AS n_listed_none,
    sum(n_hits) AS n_hits_none,
    sum(n_listed) FILTER (cells.step >= $common_step) AS n_listed_common,
    sum(n_hits) FILTER (cells.step >= $common_step) AS n_hits_common,
    sum(n_listed) FILTER (cells.step >= coalesce(name_steps.step, $common_step)) AS n_listed_own,
    sum(n_hits) FILTER (cells.step >= coalesce(name_steps.step, $common_step)) AS n_hits_own,
    (SELECT sum(n_truth) FROM name_truths WHERE half = $half) AS n_truth
FROM cells LEFT JOIN name_steps USING (name)
WHERE half = $half;
