-- The images that are drawn. Each is drawn by itself, by a number that its id and the seed decide, so that the same call
-- draws the same images. (2 ** 64 numbers, as md5 has them. Rounded, since sums of threads differ in their last digits.)
SELECT image_id, probability
FROM (SELECT image_id, round(least(1.0, share * $factor), 12) AS probability FROM draw_shares)
WHERE md5_number_lower($seed || '/' || image_id)::DOUBLE / 18446744073709551616.0 < probability
ORDER BY image_id;
