-- Samples of a run with the number of their images that anybody reviewed.
SELECT sample, count(DISTINCT image_id) AS n_reviewed
FROM drawn SEMI JOIN reviews USING (run, image_id)
WHERE run = $run
GROUP BY sample;
