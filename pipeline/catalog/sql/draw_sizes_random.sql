-- Every labelled image of a run is as likely to be drawn as any other.
CREATE OR REPLACE TEMP TABLE draw_sizes AS
SELECT image_id, 1.0::DOUBLE AS size
FROM images
WHERE run = $run AND status = 'labelled';
