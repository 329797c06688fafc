-- Samples of the runs $runs of which anybody reviewed an image, the oldest first: how many images were drawn, how many of
-- them were reviewed.
SELECT run, sample, any_value(n_drawn) AS n_drawn, count(*) AS n_reviewed
FROM samples
JOIN drawn USING (run, sample)
SEMI JOIN (SELECT image_id FROM reviews WHERE list_contains($runs, run)) AS reviewed USING (image_id)
WHERE list_contains($runs, run)
GROUP BY run, sample, created
ORDER BY created, run, sample;
