-- Names that count as equal where wider terms do: each name itself, its wider terms and theirs, its narrower ones and
-- theirs. $names and $terms are the vocabulary's, pair by pair.
CREATE OR REPLACE TEMP TABLE related AS
WITH RECURSIVE
wider_terms AS (
    SELECT unnest($names::VARCHAR[]) AS name, unnest($terms::VARCHAR[]) AS wider
),
above AS (
    SELECT name, wider FROM wider_terms
    UNION
    SELECT above.name, wider_terms.wider FROM above JOIN wider_terms ON above.wider = wider_terms.name
)
SELECT name, name AS other FROM names
UNION
SELECT name, wider FROM above
UNION
SELECT wider, name FROM above;
