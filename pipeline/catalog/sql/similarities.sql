-- How similar the compared names are: the cosine of their embeddings, which have unit length.
CREATE OR REPLACE TEMP TABLE similarities AS
WITH vectors AS (
    SELECT id, embedding FROM name_ids JOIN embeddings USING (name)
)
SELECT
    true_id,
    listed_id,
    -- A rounded product would let equal names miss a cosine of 1.
    CASE WHEN true_id = listed_id THEN 1::FLOAT ELSE array_inner_product(a.embedding, b.embedding) END AS cosine
FROM compared_names
JOIN vectors a ON a.id = true_id
JOIN vectors b ON b.id = listed_id;
