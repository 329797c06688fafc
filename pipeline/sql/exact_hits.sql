-- Hits of a run: true names that are listed, and where. Names are equal or not: `least_cosine` does not count.
CREATE OR REPLACE TEMP MACRO hits(of_run, least_cosine) AS TABLE
SELECT image_id, name AS true_name, place
FROM listed(of_run) JOIN true_names USING (image_id, name);
