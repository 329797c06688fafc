-- The images that both runs have labelled, as those that are judged.
CREATE OR REPLACE TEMP TABLE judged AS
SELECT image_id FROM images WHERE run = $run_a AND status = 'labelled'
INTERSECT
SELECT image_id FROM images WHERE run = $run_b AND status = 'labelled';
