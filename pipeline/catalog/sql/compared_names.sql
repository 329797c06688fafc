-- Numbers of names, and which true name stands in an image beside which listed one, the first $k of the run.
CREATE OR REPLACE TEMP TABLE name_ids AS
SELECT name, (row_number() OVER ())::INTEGER AS id
FROM (SELECT DISTINCT name FROM names);

CREATE OR REPLACE TEMP TABLE compared_names AS
SELECT DISTINCT true_id, listed_id
FROM (SELECT image_id, id AS listed_id FROM listed($run) JOIN name_ids USING (name) WHERE name_rank <= $k)
JOIN (SELECT image_id, id AS true_id FROM true_names JOIN name_ids USING (name)) USING (image_id);
