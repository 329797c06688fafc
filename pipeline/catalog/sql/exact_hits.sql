-- Hits of a run: true names that are listed, and their rank among the image's names. Names are equal
-- or not: `least_cosine` does not count.
CREATE OR REPLACE TEMP MACRO hits(of_run, least_cosine) AS TABLE
SELECT image_id, name AS true_name, rank::BIGINT AS name_rank
FROM stored_labels
-- Rather the few truths in all their spellings than all labels under their names.
JOIN (SELECT image_id, label, name FROM true_names JOIN names USING (name)) USING (image_id, label)
ANTI JOIN (SELECT image_id FROM folded_images WHERE run = of_run) USING (image_id)
WHERE run = of_run
UNION ALL
SELECT image_id, name, name_rank
FROM listed_folded(of_run) JOIN true_names USING (image_id, name);
