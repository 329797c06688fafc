-- Decisions of a file that the run $run does not have: neither at the same time, nor, where the file tells none, as what the
-- person says last.
SELECT *
FROM read_reviews
WHERE CASE
    WHEN reviewed IS NULL THEN (image_id, label, verdict, reviewer) NOT IN (
        SELECT (image_id, label, verdict, reviewer) FROM reviews WHERE run = $run
    )
    ELSE (image_id, label, verdict, reviewer, reviewed) NOT IN (
        SELECT (image_id, label, verdict, reviewer, reviewed) FROM stored_reviews WHERE run = $run AND reviewed IS NOT NULL
    )
END;
