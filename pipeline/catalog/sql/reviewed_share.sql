-- Of the first $k names of a run, on the judged images that were reviewed: the share that anybody judged, of all images of
-- the run that the sample is of.
SELECT sum(1 / probability) FILTER (is_true IS NOT NULL) / sum(1 / probability) AS judged_share
FROM listed($run)
SEMI JOIN (SELECT DISTINCT image_id FROM reviewed_names) AS reviewed USING (image_id)
JOIN (SELECT image_id, probability FROM drawn WHERE run = $drawn_from AND sample = $sample) AS of_sample USING (image_id)
LEFT JOIN reviewed_names USING (image_id, name)
WHERE name_rank <= $k;
