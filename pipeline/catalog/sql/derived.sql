-- Views on those of the files: `images`, `stored_labels`, `stored_spellings` (of compacted files), `unnamed_labels` (of all
-- others); and on the lists of names, of which the labels that are shown may be.

-- Every spelling of labels, with the name that it has in the vocabulary; null where it denies it. Compaction has named the
-- spellings of its files, perhaps in another vocabulary.
CREATE VIEW spellings AS
WITH
named AS (
    SELECT label, name FROM stored_spellings WHERE vocabulary = getvariable('vocabulary')
),
unnamed AS (
    SELECT label FROM stored_spellings WHERE vocabulary <> getvariable('vocabulary')
    UNION
    SELECT label FROM unnamed_labels
    UNION
    SELECT unnest(names) FROM lists SEMI JOIN chosen_lists USING (run, list)
)
SELECT
    label,
    any_value(name) AS name,
    -- Not a join, which would stay where nobody asks for the column.
    coalesce(list_contains(getvariable('sensitive_names'), any_value(name)), false) AS sensitive
FROM (
    SELECT label, name FROM named
    UNION ALL
    SELECT label, name_of(label) FROM unnamed ANTI JOIN named USING (label)
)
GROUP BY label;

-- Labels with their names. `labels` is a view of its own, which another one may hide while views on `named_labels` stay.
CREATE VIEW named_labels AS
SELECT stored_labels.* EXCLUDE (kind, list), spellings.name, kind, list, spellings.sensitive
FROM stored_labels LEFT JOIN spellings USING (label);

CREATE VIEW labels AS
SELECT *
FROM named_labels;

-- Samples that could not be labelled, and why.
CREATE VIEW rejects AS
SELECT run, shard, index, key, stage, error, message, n_bytes, image_id
FROM images
WHERE status = 'rejected';

-- Images with the bytes of an earlier one of their run, each beside the first of that content.
CREATE VIEW duplicates AS
WITH
firsts AS (
    SELECT
        run, content_hash, count(*) AS copies,
        arg_min({'shard': shard, 'index': index, 'key': key, 'image_id': image_id}, (shard, index)) AS first
    FROM images
    WHERE content_hash IS NOT NULL
    GROUP BY run, content_hash
    HAVING count(*) > 1
)
SELECT
    run, shard, index, key, first.shard AS first_shard, first.index AS first_index, first.key AS first_key, copies,
    content_hash, image_id, first.image_id AS first_image_id
FROM images JOIN firsts USING (run, content_hash)
WHERE (shard, index) <> (first.shard, first.index);

-- One row a given label.
CREATE VIEW truth AS
SELECT *, name_of(label) AS name
FROM (SELECT run, image_id, shard, index, key, unnest(truth) AS label FROM images WHERE truth IS NOT NULL);

-- One row what a person says of a label of an image: of several decisions the latest, by the tool's time, or where the
-- tool tells none by that of the import.
CREATE VIEW reviews AS
SELECT *, name_of(label) AS name
FROM stored_reviews
QUALIFY row_number() OVER (
    PARTITION BY run, image_id, label, reviewer
    ORDER BY coalesce(epoch(try_cast(reviewed AS TIMESTAMPTZ)), epoch(imported)) DESC, imported DESC, verdict DESC
) = 1;
