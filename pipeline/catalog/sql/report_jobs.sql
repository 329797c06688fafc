-- When images were labelled, and how fast: one row a job.
SELECT started, outcome, n_images, n_rejected, seconds, images_per_s
FROM jobs
WHERE run = $run
ORDER BY started;
