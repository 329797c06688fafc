-- Views on `images` and `stored_labels`.

-- Labels with the names that they have in the vocabulary; null where it denies them.
CREATE VIEW labels AS
SELECT *, name_of(label) AS name
FROM stored_labels;

-- Samples that could not be labelled, and why.
CREATE VIEW rejects AS
SELECT run, shard, index, key, stage, error, message, n_bytes, image_id
FROM images
WHERE status = 'rejected';

-- One row a given label.
CREATE VIEW truth AS
SELECT *, name_of(label) AS name
FROM (SELECT run, image_id, shard, index, key, unnest(truth) AS label FROM images WHERE truth IS NOT NULL);
