-- How many names an image lists among its first `of_k`, and how many of them are true.
CREATE OR REPLACE TEMP MACRO listed_and_hit(of_run, of_k) AS TABLE
SELECT image_id, count(*) AS n_listed, count(true_names.name) AS n_hits
FROM (SELECT image_id, name FROM listed(of_run) WHERE name_rank <= of_k) LEFT JOIN true_names USING (image_id, name)
GROUP BY image_id;
