-- Of every reviewed image that is judged, at each k of $ks: how likely it was to be drawn, how many names are true of it,
-- how many of the first k names of $run were judged, and how many of these are true.
WITH
judged_names AS (
    SELECT image_id, name_rank, is_true FROM listed($run) JOIN reviewed_names USING (image_id, name)
),
n_truth AS (
    SELECT image_id, count(*) FILTER (is_true) AS n_truth
    FROM reviewed_names SEMI JOIN judged USING (image_id)
    GROUP BY image_id
)
SELECT
    k,
    probability,
    n_truth,
    count(name_rank) FILTER (name_rank <= k) AS n_listed,
    count(name_rank) FILTER (name_rank <= k AND is_true) AS n_hits
FROM n_truth
JOIN (SELECT image_id, probability FROM drawn WHERE run = $drawn_from AND sample = $sample) AS of_sample USING (image_id)
LEFT JOIN judged_names USING (image_id)
CROSS JOIN (SELECT unnest($ks) AS k)
GROUP BY image_id, k, probability, n_truth
ORDER BY k, image_id;
