-- Hits of a run: true names that are listed, or of which a wider or narrower term is, and the listed one's rank among the
-- image's names. `least_cosine` does not count.
CREATE OR REPLACE TEMP MACRO hits(of_run, least_cosine) AS TABLE
SELECT image_id, true_names.name AS true_name, name_rank
FROM (SELECT image_id, other AS name, name_rank FROM listed(of_run) JOIN related USING (name))
JOIN true_names USING (image_id, name);
