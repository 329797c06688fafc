-- The spellings of a compacted file.
SELECT label, name_of(label) AS name, $vocabulary::VARCHAR AS vocabulary
FROM (SELECT DISTINCT label FROM labels)
ORDER BY label;
