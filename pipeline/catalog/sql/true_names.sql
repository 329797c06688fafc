-- What is true of each image, once under each name; and the images of which anything is. Where the labels of a list are
-- shown, other names cannot be found: they are left out, and an image without any of the list is judged all the same.
CREATE OR REPLACE TEMP TABLE true_names AS
SELECT DISTINCT image_id, shard, name
FROM true_labels JOIN names USING (label);

CREATE OR REPLACE TEMP TABLE judged AS
SELECT DISTINCT image_id FROM true_names;

DELETE FROM true_names
WHERE getvariable('label_kinds') = 'listed' AND name NOT IN (SELECT name FROM spellings WHERE name IS NOT NULL);
