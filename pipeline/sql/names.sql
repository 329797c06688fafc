-- Every spelling that occurs in any of $runs or in the truth, with its name; without those that the vocabulary denies.
CREATE OR REPLACE TEMP TABLE names AS
WITH spellings AS (
    SELECT label FROM stored_labels WHERE list_contains($runs, run)
    UNION
    SELECT label FROM true_labels
)
SELECT label, name
FROM (SELECT label, name_of(label) AS name FROM spellings)
WHERE name IS NOT NULL;
