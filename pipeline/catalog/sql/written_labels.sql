-- What the recognizer wrote of itself, in all runs. Labels of runs that see the centre of images alone have no column `view`
-- in their files.
CREATE VIEW written_labels AS
SELECT *, NULL::TINYINT AS "view" FROM centre_labels
UNION ALL BY NAME
SELECT * FROM view_labels;

-- Those of files whose spellings no compaction has named.
CREATE VIEW unnamed_labels AS
SELECT label FROM unnamed_centre_labels
UNION ALL
SELECT label FROM unnamed_view_labels;
