-- Labels whose score reaches the threshold of their name, or the common one for names that have none of their own. Only
-- of runs whose scores the thresholds are for; labels that the vocabulary denies have no name and are left out.
CREATE VIEW confident_labels AS
SELECT named_labels.*
FROM named_labels
JOIN threshold_runs USING (run)
LEFT JOIN thresholds USING (name)
WHERE name IS NOT NULL
AND CASE
    WHEN lowest_first THEN score <= coalesce(threshold, common)
    ELSE score >= coalesce(threshold, common)
END;
