-- Names that no vocabulary mentions, the most frequent first: since when, how often, how scores lie, and the $n images that
-- list the name at the highest rank.
WITH
labelled AS (
    SELECT label, name FROM spellings SEMI JOIN unmentioned_names USING (name)
)
SELECT
    name,
    count(DISTINCT (run, image_id)) AS images,
    min(committed) AS since,
    min(score) AS score_min,
    quantile_cont(score, 0.25) AS score_25,
    median(score) AS score_50,
    quantile_cont(score, 0.75) AS score_75,
    max(score) AS score_max,
    -- Images are told apart so that it is the same ones each time.
    arg_min({'run': run, 'shard': shard, 'index': "index"}, rank::DOUBLE + hash(run, image_id) / 2e19, $n) AS places
FROM stored_labels JOIN labelled USING (label) JOIN shard_times USING (run, shard)
GROUP BY name
ORDER BY images DESC, name;
