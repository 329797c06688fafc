-- Each listed name with its step; its occurrences and hits from there on, and all of them; the most frequent
-- first.
WITH
counted AS (
    SELECT
        name,
        name_steps.step AS step,
        sum(n_listed) FILTER (cells.step >= name_steps.step) AS n_listed,
        sum(n_hits) FILTER (cells.step >= name_steps.step) AS n_hits,
        sum(n_listed) AS n_listed_before,
        sum(n_hits) AS n_hits_before
    FROM name_steps JOIN cells USING (name)
    GROUP BY ALL
),
supported AS (
    SELECT name, sum(n_truth) AS n_truth FROM name_truths GROUP BY name
)
SELECT
    name,
    step,
    coalesce(n_truth, 0) AS n_truth,
    coalesce(n_listed, 0) AS n_listed,
    coalesce(n_hits, 0) AS n_hits,
    n_listed_before,
    n_hits_before
FROM counted
LEFT JOIN supported USING (name)
ORDER BY n_listed_before DESC, name;
