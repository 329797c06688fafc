-- The list of each run whose labels are shown, and how many names of it an image has at most.
SELECT run, list, if("top" = 0, len(names), least("top", len(names))) AS n_kept
FROM chosen_lists JOIN lists USING (run, list)
ORDER BY run;
