-- The labels that a connection shows: names of a list, of each run that of `chosen_lists`.
CREATE VIEW stored_labels AS
SELECT
    image_id, shard, index, rank, label, score, NULL::FLOAT AS first_token_prob, NULL::SMALLINT AS n_tokens, run,
    NULL::TINYINT AS "view",
    'listed' AS kind, list
FROM chosen_listed_labels;

-- How many labels each image has.
CREATE VIEW label_counts AS
SELECT run, image_id, status, coalesce(n_stored, 0) AS n_labels
FROM images LEFT JOIN (SELECT run, image_id, count(*) AS n_stored FROM stored_labels GROUP BY ALL) USING (run, image_id);
