-- How many images have so many labels.
SELECT n_labels, count(*) AS images
FROM label_counts
WHERE run = $run AND status = 'labelled'
GROUP BY n_labels
ORDER BY n_labels;
