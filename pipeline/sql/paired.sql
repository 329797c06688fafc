-- The images that both runs have labelled, as those that are judged; the others' truth does not count.
CREATE OR REPLACE TEMP TABLE judged AS
SELECT image_id FROM images WHERE run = $run_a AND status = 'labelled'
INTERSECT
SELECT image_id FROM images WHERE run = $run_b AND status = 'labelled';

CREATE OR REPLACE TEMP TABLE true_names AS
SELECT true_names.* FROM true_names SEMI JOIN judged USING (image_id);
