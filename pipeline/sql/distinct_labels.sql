-- Every spelling that occurs in any of $runs or in the truth.
SELECT label FROM stored_labels WHERE list_contains($runs, run)
UNION
SELECT label FROM true_labels;
