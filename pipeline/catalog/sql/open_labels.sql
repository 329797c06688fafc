-- The labels that a connection shows: what the recognizer wrote of itself.
CREATE VIEW stored_labels AS
SELECT *, 'open' AS kind, NULL::VARCHAR AS list
FROM written_labels;

-- How many labels each image has.
CREATE VIEW label_counts AS
SELECT run, image_id, status, n_labels::BIGINT AS n_labels
FROM images;
