-- Each name of a run: images where it is true, where it is among the first $k names, and where it is both. Images without
-- truth are left out.
WITH
found AS (
    SELECT name, count(*) AS n_listed, count(true_names.image_id) AS n_hits
    FROM listed($run) LEFT JOIN true_names USING (image_id, name)
    WHERE name_rank <= $k
    GROUP BY name
),
supported AS (
    SELECT name, count(*) AS n_truth FROM true_names GROUP BY name
)
SELECT name, coalesce(n_truth, 0) AS n_truth, coalesce(n_listed, 0) AS n_listed, coalesce(n_hits, 0) AS n_hits
FROM supported FULL JOIN found USING (name)
ORDER BY n_truth DESC NULLS LAST, name;
