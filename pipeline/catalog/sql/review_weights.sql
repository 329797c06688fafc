-- For how much each judged image of a sample counts: as one over how likely it was to be drawn, and together for as many
-- images as an even sample would need to tell as much (Kish's effective size).
CREATE OR REPLACE TEMP TABLE review_weights AS
SELECT
    image_id,
    probability,
    1 / probability * sum(1 / probability) OVER () / sum(1 / probability ** 2) OVER () AS weight
FROM judged
JOIN (SELECT image_id, probability FROM drawn WHERE run = $drawn_from AND sample = $sample) AS of_sample USING (image_id);
