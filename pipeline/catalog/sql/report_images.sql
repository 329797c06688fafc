-- The chosen images in the order of shard and index, with what is true of them and with the labels of the runs $runs: of
-- the second one `other_labels` is null where it has not labelled the image, and empty where it found nothing. Texts are
-- cut to $n_characters of a caption or message and $n_label_characters of a name, lists to $n_labels; of true names those
-- that are left out are counted.
WITH
wanted AS (
    SELECT *
    FROM images SEMI JOIN chosen USING (image_id)
),
listed AS (
    SELECT
        image_id,
        run,
        list(
            {
                'label': left(label, $n_label_characters),
                'name': CASE WHEN name <> label THEN left(name, $n_label_characters) END,
                'is_denied': name IS NULL,
                'score': CASE WHEN isfinite(score) THEN score END,
                'view': "view",
                'is_hit': true_names.name IS NOT NULL
            }
            ORDER BY rank
        ) AS labels
    FROM memory.main.labels AS labels
    SEMI JOIN wanted USING (image_id)
    LEFT JOIN true_names USING (image_id, name)
    WHERE list_contains($runs, run) AND rank <= $n_labels
    GROUP BY image_id, run
),
others AS (
    SELECT image_id, status AS other_status, concat_ws(': ', stage, left(error, $n_label_characters)) AS rejection
    FROM memory.main.images AS images SEMI JOIN wanted USING (image_id)
    WHERE run = $runs[2]
),
listed_names AS (
    SELECT image_id, name, min(rank) AS rank
    FROM labels SEMI JOIN wanted USING (image_id)
    WHERE name IS NOT NULL
    GROUP BY image_id, name
),
numbered_truth AS (
    SELECT image_id, name, rank, row_number() OVER (PARTITION BY image_id ORDER BY rank NULLS LAST, name) AS number
    FROM true_names SEMI JOIN wanted USING (image_id) LEFT JOIN listed_names USING (image_id, name)
),
true_lists AS (
    SELECT
        image_id,
        list({'name': left(name, $n_label_characters), 'rank': rank} ORDER BY number) FILTER (number <= $n_labels) AS truth,
        count(*) FILTER (number > $n_labels) AS n_more_truth,
        count(*) FILTER (number > $n_labels AND rank IS NULL) AS n_more_missed
    FROM numbered_truth
    GROUP BY image_id
)
SELECT
    wanted.image_id, wanted.shard, "index", key, status, stage,
    left(error, $n_label_characters) AS error,
    left(message, $n_characters) AS message,
    width, height, n_bytes, content_hash,
    left(caption, $n_characters) AS caption,
    length(caption) AS n_caption_characters,
    n_unfinished,
    coalesce(of_run.labels, []) AS labels,
    CASE WHEN other_status = 'labelled' THEN coalesce(of_other.labels, []) END AS other_labels,
    CASE WHEN other_status = 'rejected' THEN rejection END AS other_rejection,
    coalesce(true_lists.truth, []) AS truth,
    n_more_truth,
    n_more_missed
FROM wanted
LEFT JOIN true_lists USING (image_id)
LEFT JOIN others USING (image_id)
LEFT JOIN listed AS of_run ON of_run.image_id = wanted.image_id AND of_run.run = $runs[1]
LEFT JOIN listed AS of_other ON of_other.image_id = wanted.image_id AND of_other.run = $runs[2]
ORDER BY wanted.shard, "index";
