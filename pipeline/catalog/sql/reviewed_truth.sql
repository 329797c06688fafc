-- The images that were reviewed as those that are judged, and what is true of them.
CREATE OR REPLACE TEMP TABLE judged AS
SELECT DISTINCT image_id FROM reviewed_names;

CREATE OR REPLACE TEMP TABLE true_names AS
SELECT image_id, NULL::VARCHAR AS shard, name FROM reviewed_names WHERE is_true;

CREATE OR REPLACE TEMP TABLE true_labels AS
SELECT image_id, shard, name AS label FROM true_names;
