-- Hits of a run: true names that have a listed one of a cosine of `least_cosine` or more, and that one's rank among the image's
-- names.
CREATE OR REPLACE TEMP MACRO hits(of_run, least_cosine) AS TABLE
SELECT image_id, true_name, name_rank
FROM (SELECT image_id, id AS listed_id, name_rank FROM listed(of_run) JOIN name_ids USING (name))
JOIN (SELECT image_id, name AS true_name, id AS true_id FROM true_names JOIN name_ids USING (name)) USING (image_id)
JOIN (SELECT true_id, listed_id FROM similarities WHERE cosine >= least_cosine) USING (true_id, listed_id);
