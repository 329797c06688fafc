-- Samples of a run, and how many of them were rejected.
SELECT count(*) AS n_images, count(*) FILTER (status = 'rejected') AS n_rejected
FROM images
WHERE run = $run;
