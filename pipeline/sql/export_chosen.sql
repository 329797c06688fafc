-- Which images are exported. $condition is a user's, known to be one expression.
CREATE OR REPLACE TEMP TABLE chosen AS
SELECT image_id
FROM (SELECT * FROM images WHERE status = 'labelled') AS images
WHERE (
$condition
);
