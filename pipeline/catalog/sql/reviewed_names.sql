-- What anybody judged of the images of the sample $sample of the run $drawn_from, among the reviews of the runs $runs: of
-- several reviewers the majority counts, each of whom has one voice, and a name that is as often true as not, or unsure, is
-- not judged. Where the labels of a list are shown, other names cannot be found: they are left out.
CREATE OR REPLACE TEMP TABLE reviewed_names AS
WITH
votes AS (
    SELECT
        image_id,
        name,
        sign(sum(CASE verdict WHEN 'no' THEN -1 WHEN 'unsure' THEN 0 ELSE 1 END)) AS vote
    FROM reviews
    SEMI JOIN (SELECT image_id FROM drawn WHERE run = $drawn_from AND sample = $sample) AS of_sample USING (image_id)
    WHERE list_contains($runs, run) AND name IS NOT NULL
    AND (getvariable('label_kinds') <> 'listed' OR name IN (SELECT name FROM spellings WHERE name IS NOT NULL))
    GROUP BY image_id, name, reviewer
)
SELECT image_id, name, sum(vote) > 0 AS is_true
FROM votes
GROUP BY image_id, name
HAVING sum(vote) <> 0;
