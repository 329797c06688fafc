-- What is true of each image, once under each name; and the images of which anything is.
CREATE OR REPLACE TEMP TABLE true_names AS
SELECT DISTINCT image_id, shard, name
FROM true_labels JOIN names USING (label);

CREATE OR REPLACE TEMP TABLE judged AS
SELECT DISTINCT image_id FROM true_names;
