-- Names that the run $run lists for the images that were just drawn, best first.
SELECT image_id, list(name ORDER BY rank, name) AS names
FROM (
    SELECT image_id, name, min(rank) AS rank
    FROM labels SEMI JOIN drawn_now USING (image_id)
    WHERE run = $run AND name IS NOT NULL
    GROUP BY image_id, name
)
GROUP BY image_id;
