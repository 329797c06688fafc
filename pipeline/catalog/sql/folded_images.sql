-- Images of the runs $run_a and $run_b where two labels have one name, or one is denied. In all others a name's rank is
-- its label's: a label occurs once in an image, and ranks go from 1 without a gap.
CREATE OR REPLACE TEMP TABLE folded_images AS
SELECT DISTINCT run, image_id
FROM (
    SELECT run, image_id
    FROM stored_labels JOIN folding USING (label)
    WHERE run = $run_a OR run = $run_b
    GROUP BY run, image_id, name
    HAVING name IS NULL OR count(*) > 1
);
