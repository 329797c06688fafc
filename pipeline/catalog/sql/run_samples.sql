-- Samples of a run, the oldest first.
SELECT sample, n_drawn FROM samples WHERE run = $run ORDER BY created, sample;
