-- The judged labels, each at its step.
CREATE OR REPLACE TEMP TABLE placed AS
SELECT image_id, name, step_of(goodness) AS step, is_hit
FROM occurrences($run, $lowest_first);
