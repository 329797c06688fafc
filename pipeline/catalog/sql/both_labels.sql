-- The labels that a connection shows: those that the recognizer wrote of itself and the names of a list, in one order of
-- scores, which are probabilities. A label of an image that is of both kinds stands once, as listed: its score then has all
-- spellings.
CREATE VIEW stored_labels AS
WITH
listed AS (
    SELECT
        image_id, shard, index, rank, label, score, NULL::FLOAT AS first_token_prob, NULL::SMALLINT AS n_tokens, run,
        NULL::TINYINT AS "view",
        'listed' AS kind, list
    FROM chosen_listed_labels
),
found AS (
    SELECT * FROM listed
    UNION ALL BY NAME
    SELECT *, 'open' AS kind, NULL::VARCHAR AS list
    FROM written_labels ANTI JOIN listed USING (run, image_id, label)
)
SELECT
    * REPLACE (
        (row_number() OVER (PARTITION BY run, image_id ORDER BY score DESC, kind, found.rank))::SMALLINT AS rank
    )
FROM found;

-- How many labels each image has.
CREATE VIEW label_counts AS
SELECT run, image_id, status, coalesce(n_stored, 0) AS n_labels
FROM images LEFT JOIN (SELECT run, image_id, count(*) AS n_stored FROM stored_labels GROUP BY ALL) USING (run, image_id);
