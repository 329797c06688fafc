-- What anybody judged of the images of a sample: of several reviewers the majority counts, and a name that is as often true
-- as not, or unsure, is not judged.
CREATE OR REPLACE TEMP TABLE reviewed_names AS
SELECT image_id, name, sum(vote) > 0 AS is_true
FROM (
    SELECT image_id, name_of(label) AS name, CASE verdict WHEN 'no' THEN -1 WHEN 'unsure' THEN 0 ELSE 1 END AS vote
    FROM reviews SEMI JOIN (SELECT image_id FROM drawn WHERE run = $run AND sample = $sample) USING (image_id)
    WHERE run = $run
)
WHERE name IS NOT NULL
GROUP BY image_id, name
HAVING sum(vote) <> 0;
