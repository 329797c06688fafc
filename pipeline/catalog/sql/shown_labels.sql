-- How many labels of a run the connection shows.
SELECT coalesce(sum(n_labels), 0)::BIGINT AS n_labels
FROM label_counts
WHERE run = $run;
