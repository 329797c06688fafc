-- What a run lists for its folded images: names in the order of their best labels, each once.
CREATE OR REPLACE TEMP MACRO listed_folded(of_run) AS TABLE
SELECT
    image_id,
    name,
    row_number() OVER (PARTITION BY image_id ORDER BY min(rank)) AS name_rank,
    min(score) AS lowest_score,
    max(score) AS highest_score
FROM stored_labels JOIN names USING (label)
SEMI JOIN judged USING (image_id)
SEMI JOIN (SELECT image_id FROM folded_images WHERE run = of_run) USING (image_id)
WHERE run = of_run
GROUP BY image_id, name;

-- What it lists for all judged images.
CREATE OR REPLACE TEMP MACRO listed(of_run) AS TABLE
SELECT image_id, name, rank::BIGINT AS name_rank, score AS lowest_score, score AS highest_score
FROM stored_labels JOIN names USING (label)
SEMI JOIN judged USING (image_id)
ANTI JOIN (SELECT image_id FROM folded_images WHERE run = of_run) USING (image_id)
WHERE run = of_run
UNION ALL
FROM listed_folded(of_run);

-- How many names it lists for each.
CREATE OR REPLACE TEMP MACRO listed_counts(of_run) AS TABLE
SELECT image_id, n_labels AS n_listed
FROM label_counts
SEMI JOIN judged USING (image_id)
ANTI JOIN (SELECT image_id FROM folded_images WHERE run = of_run) USING (image_id)
WHERE run = of_run
UNION ALL
SELECT image_id, count(*) FROM listed_folded(of_run) GROUP BY image_id;
