-- Chosen images of the shards from $first to $last, with labels and truth. A name stands once in an image, for the
-- best of its labels; labels without a name, which the vocabulary denies, are left out. $min_score NULL takes any.
WITH
wanted AS (
    SELECT image_id, shard, "index", key, width, height, n_bytes, content_hash, caption, truth
    FROM images SEMI JOIN chosen USING (image_id)
    WHERE shard BETWEEN $first AND $last
),
named AS (
    -- By way of its text a score keeps the digits that it has, also against the limit: 0.1, not 0.10000000149.
    SELECT image_id, name, label, if(isfinite(score), score::VARCHAR::DOUBLE, NULL) AS score, rank
    FROM labels SEMI JOIN wanted USING (image_id)
    WHERE shard BETWEEN $first AND $last AND name IS NOT NULL
    AND ($min_score IS NULL OR score::VARCHAR::DOUBLE >= $min_score)
    QUALIFY row_number() OVER (PARTITION BY image_id, name ORDER BY rank) = 1
),
listed AS (
    SELECT image_id, list({'name': name, 'label': label, 'score': score, 'rank': rank} ORDER BY rank) AS labels
    FROM named
    GROUP BY image_id
),
given AS (
    SELECT image_id, label, name_of(label) AS name, number
    FROM (SELECT image_id, unnest(truth) AS label, generate_subscripts(truth, 1) AS number FROM wanted)
),
true_names AS (
    SELECT image_id, name, label, number
    FROM given
    WHERE name IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY image_id, name ORDER BY number) = 1
),
true_lists AS (
    SELECT image_id, list({'name': name, 'label': label} ORDER BY number) AS true_list
    FROM true_names
    GROUP BY image_id
)
SELECT
    wanted.* EXCLUDE (truth),
    coalesce(labels, []) AS labels,
    if(truth IS NULL, NULL, coalesce(true_list, [])) AS truth
FROM wanted LEFT JOIN listed USING (image_id) LEFT JOIN true_lists USING (image_id)
ORDER BY shard, "index";
