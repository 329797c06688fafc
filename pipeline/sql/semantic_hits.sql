-- Hits of a run: true names that have a listed one of a cosine of `least_cosine` or more, and where.
CREATE OR REPLACE TEMP MACRO hits(of_run, least_cosine) AS TABLE
SELECT image_id, true_name, place
FROM (SELECT image_id, name AS listed_name, place FROM listed(of_run))
JOIN (SELECT image_id, name AS true_name FROM true_names) USING (image_id)
JOIN similarities USING (true_name, listed_name)
WHERE cosine >= least_cosine;
