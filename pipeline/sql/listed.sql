-- What a run lists for each of the judged images: names in the order of their best labels, each once.
CREATE OR REPLACE TEMP MACRO listed(of_run) AS TABLE
SELECT
    image_id,
    name,
    row_number() OVER (PARTITION BY image_id ORDER BY min(rank)) AS place,
    min(score) AS lowest_score,
    max(score) AS highest_score
FROM stored_labels JOIN names USING (label) SEMI JOIN judged USING (image_id)
WHERE run = of_run
GROUP BY image_id, name;
