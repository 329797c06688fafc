-- How many labelled images of a run have captions, and no noun in them.
SELECT count(*) AS n_images
FROM images
ANTI JOIN true_labels USING (image_id)
WHERE run = $run AND status = 'labelled' AND trim(caption) <> '';
