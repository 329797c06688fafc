-- For each true name: what images that lack it among their first $k names list instead, the $n most frequent.
WITH
first_k AS (
    SELECT image_id, name FROM listed($run) WHERE name_rank <= $k
),
missed AS (
    SELECT image_id, name FROM true_names ANTI JOIN first_k USING (image_id, name)
),
wrong AS (
    SELECT image_id, name FROM first_k ANTI JOIN true_names USING (image_id, name)
)
SELECT missed.name, wrong.name AS instead, count(*) AS n_images
FROM missed JOIN wrong USING (image_id)
GROUP BY missed.name, instead
QUALIFY row_number() OVER (PARTITION BY missed.name ORDER BY n_images DESC, instead) <= $n
ORDER BY missed.name, n_images DESC, instead;
