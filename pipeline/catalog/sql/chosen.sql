-- Images of the statuses $statuses that meet a condition. It is a user's, known to be one expression.
CREATE OR REPLACE TEMP TABLE chosen AS
SELECT image_id
FROM (SELECT * FROM images WHERE status IN ($statuses)) AS images
WHERE (
$condition
);
