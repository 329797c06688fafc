-- How similar every true name is to every name that any of its images lists: the cosine of their embeddings, which have
-- unit length.
CREATE OR REPLACE TEMP TABLE similarities AS
WITH pairs AS (
    SELECT DISTINCT true_names.name AS true_name, listed.name AS listed_name
    FROM true_names JOIN listed($run) listed USING (image_id)
)
SELECT true_name, listed_name, array_inner_product(a.embedding, b.embedding)::DOUBLE AS cosine
FROM pairs
JOIN embeddings a ON a.name = true_name
JOIN embeddings b ON b.name = listed_name;
