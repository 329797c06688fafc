-- Keeps $n of the chosen images: those of the lowest digests. They depend on the images and the seed, on nothing else.
CREATE OR REPLACE TEMP TABLE chosen AS
SELECT image_id
FROM chosen
ORDER BY md5(concat(image_id, ' ', $seed)), image_id
LIMIT $n;
