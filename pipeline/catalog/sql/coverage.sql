-- What the labels of a run, at any rank, name of what is true of any image; how many names they have; and how many of the
-- labels the vocabulary denies. Images without truth are left out.
WITH
counted AS (
    SELECT label, count(*) AS n_labels
    FROM stored_labels SEMI JOIN judged USING (image_id)
    WHERE run = $run
    GROUP BY label
),
named AS MATERIALIZED (
    SELECT name, n_labels FROM counted LEFT JOIN names USING (label)
),
listed_names AS (
    SELECT DISTINCT name FROM named WHERE name IS NOT NULL
),
truths AS (
    SELECT
        count(*) AS n_true_names,
        count(listed_names.name) AS n_true_names_listed,
        sum(n_truth)::BIGINT AS n_truths,
        coalesce(sum(n_truth) FILTER (listed_names.name IS NOT NULL), 0)::BIGINT AS n_truths_listed
    FROM (SELECT name, count(*) AS n_truth FROM true_names GROUP BY name) LEFT JOIN listed_names USING (name)
)
SELECT
    truths.*,
    (SELECT count(*) FROM listed_names) AS n_names_listed,
    (SELECT coalesce(sum(n_labels), 0)::BIGINT FROM named) AS n_labels,
    (SELECT coalesce(sum(n_labels), 0)::BIGINT FROM named WHERE name IS NULL) AS n_labels_denied
FROM truths;
