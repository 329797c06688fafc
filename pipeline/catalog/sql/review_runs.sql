-- Runs that all images of a file of reviews were drawn from.
SELECT run
FROM drawn JOIN (SELECT DISTINCT image_id FROM read_reviews) AS reviewed USING (image_id)
GROUP BY run
HAVING count(DISTINCT image_id) = (SELECT count(DISTINCT image_id) FROM read_reviews)
ORDER BY run;
