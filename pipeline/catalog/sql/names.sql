-- Every spelling that occurs in the store or in the truth, with its name; without those that the vocabulary denies.
CREATE OR REPLACE TEMP TABLE names AS
WITH
known AS (
    SELECT label, name FROM spellings
),
others AS (
    SELECT DISTINCT label FROM true_labels ANTI JOIN known USING (label)
)
SELECT label, name
FROM (SELECT label, name FROM known UNION ALL SELECT label, name_of(label) FROM others)
WHERE name IS NOT NULL;

-- Spellings of which an image may hold two under one name, and those that are denied (then the name is null).
CREATE OR REPLACE TEMP TABLE folding AS
SELECT label, names.name
FROM (SELECT label FROM spellings) LEFT JOIN names USING (label)
QUALIFY names.name IS NULL OR count(*) OVER (PARTITION BY names.name) > 1;
